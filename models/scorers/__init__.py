"""No-reference quality scorers: six built in, the paper's official six by name, and third-party ones by entry point.

Importing this package costs NumPy and Pillow; weights and runtimes are loaded with the scorer that needs them.
"""

from models.scorers.built_in import BUILT_INS, load_built_in
from models.scorers.catalogue import (
    ScorerRecord,
    load_scorer,
    missing_weights,
    records,
    register_scorer,
    scorer_sampling,
    scorer_version,
)
from models.scorers.protocol import CLIP_FRAMES, Calibration, Excerpt, Gathering, Sampling, Scorer, Strip
from models.scorers.runtime import Runtime, TorchScorer

__all__ = [
    "BUILT_INS",
    "CLIP_FRAMES",
    "Calibration",
    "Excerpt",
    "Gathering",
    "Runtime",
    "Sampling",
    "Scorer",
    "ScorerRecord",
    "Strip",
    "TorchScorer",
    "load_built_in",
    "load_scorer",
    "missing_weights",
    "records",
    "register_scorer",
    "scorer_sampling",
    "scorer_version",
]
