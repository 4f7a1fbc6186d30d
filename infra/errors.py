"""Errors of storage, registry and endpoints (``infra`` never sees ``tasks``)."""


class InfraError(RuntimeError):
    """A store, remote, registry or endpoint did not do what was asked; the message says what to do."""


class MissingObjectError(InfraError):
    """The store answers, but holds nothing under this key."""


class RegistryError(InfraError):
    """A model, version or stage does not exist, or cannot be promoted; the message says what does exist or why."""
