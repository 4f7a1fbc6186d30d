"""Errors of storage, registry and endpoints (``infra`` never sees ``tasks``)."""


class InfraError(RuntimeError):
    """A store, remote, registry or endpoint did not do what was asked; the message says what to do."""
