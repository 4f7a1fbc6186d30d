"""What tests of the student start from: its section in miniature, and what ``explain`` would have gathered."""

from pathlib import Path

from models.rali.codebook import Recipe
from models.rali.student import TowerSpec
from models.rali.views import TileView
from tasks.pool import load_candidates
from tasks.records import EXPLANATIONS, TAUGHT, Split
from tasks.shards import frame_of, write_table
from tasks.stage import Place
from tasks.training import rali
from tasks.training.rali_course import AlignConfig, BuildConfig, FitConfig
from tasks.training.trainer import TrainingConfig

TRAINING = TrainingConfig(
    engine="single", seed=1, threads=1, precision="float32", steps=4, batch_examples=8, micro_batches=1,
    learning_rate=2e-3, weight_decay=0.0, warm_up_share=0.1, clip_norm=1.0, checkpoint_every=2,
)  # fmt: skip
CONFIG = rali.Config(
    texts=(),
    scores="teacher",
    sources=(),
    view=TileView("fragments", 56, 28, 1),
    frames=4,
    views=2,
    tower=TowerSpec("compact", 12, 16),
    text=rali.TextSpec("decoder", "", 64, "chunks"),
    align=AlignConfig(True, 0.07, False, False, "masked", None),
    build=BuildConfig(True, 6, True, Recipe(8, 6, "buckets", 0)),
    fit=FitConfig(True, 1.0, "basis", 5, 5e-3),
    max_reject_share=0.0,
    training=TRAINING,
)


def write_explained(root: Path) -> None:
    """Stand in for ``explain``: two texts about most media of the training splits, and scores of all."""
    pool = load_candidates(Place(root, root, root))
    shown = pool[pool["split"] != Split.HELD_OUT].to_dict("records")
    said, worth = [], []
    for number, row in enumerate(shown):
        about = {"id": row["id"], "content_id": row["content_id"], "modality": row["modality"]}
        quality = 0.8 - 0.12 * row["severity"] + 0.01 * (number % 5)
        worth.append({**about, "split": row["split"], "teacher": quality, "opinion": 1.0 - quality})
        for turn, text in enumerate(("It looks soft", f"Severity {row['severity']}") if number % 7 else ()):
            key = {"source": ("reviewed", "teacher")[turn], "number": 0, "text": text, "dropped": 0}
            said.append({**about, **key, "seed": None, "temperature": None, "top_p": None})
    folder = root / "artifacts" / "explain"
    write_table(folder / "explanations.parquet", EXPLANATIONS, frame_of(EXPLANATIONS, said))
    write_table(folder / "taught.parquet", TAUGHT, frame_of(TAUGHT, worth))
