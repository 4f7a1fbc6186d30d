"""Work with a trained model without what torch and transformers tell their developers."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Leave out the libraries' progress bars and warnings; afterwards all is as it was."""
    from transformers.utils import logging

    shown, told = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"torch|models\.vision_encoder")
            yield
    finally:
        logging.set_verbosity(told)
        if shown:
            logging.enable_progress_bar()
