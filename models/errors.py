"""Errors of the networks and of the opinion mathematics (``models`` never sees ``tasks``)."""


class ModelError(ValueError):
    """Weights, a tokenizer or an input do not fit the model; the message says what was expected."""


class MissingWeightsError(ModelError):
    """A weight file is not on this machine; the message says which file belongs where and where it comes from."""
