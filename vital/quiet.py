"""Loading a trained model without what torch and transformers tell their developers."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.quality_lmm import QualityLMM


def load_judge(folder: Path) -> "QualityLMM":
    """Load a model's folder; progress bars and warnings of the libraries are left out.

    Raises:
        MissingWeightsError, ModelError: as ``QualityLMM.from_pretrained``.
    """
    warnings.filterwarnings("ignore", module=r"torch|models\.vision_encoder")
    from transformers.utils import logging

    from models.quality_lmm import QualityLMM

    logging.disable_progress_bar()
    return QualityLMM.from_pretrained(folder)
