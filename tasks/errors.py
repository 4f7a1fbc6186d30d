"""The errors a user may see: each message is one line that says what is wrong and what to do about it."""


class VitalError(Exception):
    """Base of every expected failure; the command line prints its message without a traceback."""


class ConfigError(VitalError):
    """A parameter is unknown, of the wrong type, or out of its range."""


class StageError(VitalError):
    """A stage cannot run or cannot finish: an input is missing or its content breaks the stage's contract."""


class GateError(StageError):
    """A declared gate did not hold; the message names the expectation, the number of rows and some ids."""


class MediaError(VitalError):
    """A medium is not usable.

    ``reason`` is a short stable code (``truncated``, ``too_large``, ``unknown_format`` ...) that is written
    to the rejects table; the message is for people.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
