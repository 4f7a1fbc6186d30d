"""Errors of storage, registry and endpoints (``infra`` never sees ``tasks``)."""


class InfraError(RuntimeError):
    """A store, remote, registry or endpoint did not do what was asked; the message says what to do."""


class MissingObjectError(InfraError):
    """The store answers, but holds nothing under this key."""


class RegistryError(InfraError):
    """A model, version or stage does not exist, or cannot be promoted; the message says what does exist or why."""


class EndpointError(InfraError):
    """An LMM endpoint did not answer; the message names host, status and remedy, never a key or the server's words."""


class EndpointRefusedError(EndpointError):
    """The endpoint refuses requests of this kind (key, address, model or a parameter): asking again is of no use."""


class EndpointUnavailableError(EndpointError):
    """The endpoint has failed at every attempt (rate limit, server error, timeout, broken answer)."""


class QuestionRefusedError(EndpointError):
    """The endpoint refuses this one request, by its content filter or as unfit; others may pass.

    Args:
        message: for people.
        status: of the answer.
        filtered: whether the server says that its content filter refused.
    """

    def __init__(self, message: str, status: int, *, filtered: bool) -> None:
        super().__init__(message)
        self.status, self.filtered = status, filtered
