"""Planted truth: precision and recall of a finished review on assertions whose truth the recipes know.

    python benchmarks/planted_truth.py [--workspace DIR]

Reads what the stages describe and review have made (make run makes both). As many truths as falsehoods are taken, by a
hash of their ids, from every kind of claim that is planted; an assertion counts as accepted if it was kept in any
wording, except that a falsehood which a revision has put right counts as rejected.

No type of the catalogue makes contrast bad for certain, so the line plants nothing about it. Here the tones of those of
the pool's photographs that the judges' thresholds were not fitted on are pressed into a fifth of their range, which
leaves no doubt, and reviewed in a workspace of their own: that contrast is low is true of each, and false that it is
fine.

Exit code 1 under 500 assertions.
"""

import argparse
import dataclasses
import hashlib
import io
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from arguments import folder_with
from PIL import Image

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from models.signals.claims import Attribute, Claim, Degree, Fault, faulty, fine, parse_claim  # noqa: E402 - see above
from models.signals.wording import phrase  # noqa: E402
from tasks.annotation import review  # noqa: E402
from tasks.annotation.parts import rows_of  # noqa: E402
from tasks.media import ADMITTED, decode_image  # noqa: E402
from tasks.pool import read_media  # noqa: E402
from tasks.records import ASSERTIONS, CANDIDATES, REVIEWED, Modality, Origin, Split  # noqa: E402
from tasks.shards import digest, frame_of, read_table, write_archive, write_table  # noqa: E402
from tasks.stage import Place, build_config, read_params  # noqa: E402

LEAST = 500


@dataclass(frozen=True)
class Judged:
    """One planted assertion."""

    kind: str
    truth: bool
    accepted: bool
    order: str


def judged(workspace: Path) -> list[Judged]:
    """All planted assertions of a workspace with what became of them."""
    planted = rows_of(read_table(workspace / "artifacts" / "describe" / "assertions.parquet", ASSERTIONS))
    reviewed = rows_of(read_table(workspace / "artifacts" / "review" / "reviewed.parquet", REVIEWED))
    outcomes = {row["assertion_id"]: row for row in reviewed}
    found = []
    for row in planted:
        if row["origin"] == Origin.PLANTED:
            outcome, claim = outcomes[row["assertion_id"]], parse_claim(row["text"])
            kind = "unread" if claim is None else f"{claim.attribute}: {claim.fault or 'fine'}"
            truth = bool(row["planted_truth"])
            accepted = bool(outcome["kept"]) and (truth or outcome["text"] == row["text"])
            order = hashlib.sha256(row["assertion_id"].encode()).hexdigest()
            found.append(Judged(kind, truth, accepted, order))
    return found


def balanced(found: list[Judged]) -> list[Judged]:
    """Half truths, half falsehoods: the larger half is thinned evenly over its kinds."""
    halves = [[one for one in found if one.truth is wanted] for wanted in (True, False)]
    size = min(map(len, halves))
    return [one for half in halves for one in _thinned(half, size)]


def _thinned(half: list[Judged], size: int) -> list[Judged]:
    by_kind: dict[str, list[Judged]] = {}
    for one in sorted(half, key=lambda one: one.order):
        by_kind.setdefault(one.kind, []).append(one)
    ranked = sorted(
        (place / len(group), kind, one) for kind, group in by_kind.items() for place, one in enumerate(group)
    )
    return [one for *_, one in sorted(ranked, key=lambda entry: entry[:2])[:size]]


def pressed(workspace: Path) -> list[Judged]:
    """Review photographs whose tones are pressed together: one truth and one falsehood about the contrast of each."""
    pool = rows_of(read_table(workspace / "artifacts" / "collect" / "candidates.parquet", CANDIDATES))
    unseen = [row for row in pool if row["modality"] == Modality.IMAGE and row["split"] != Split.TRAIN]
    source = Place(workspace, workspace, workspace)
    with tempfile.TemporaryDirectory(prefix="vital-planted-") as folder:
        root = Path(folder)
        os.environ["VITAL_STORE"] = str(root / "store")
        media = {row["id"]: _pressed(read_media(source, row | {"stage": "collect"})) for row in unseen}
        places = write_archive(root / "artifacts/collect/media/all.tar", ((f"{k}.png", v) for k, v in media.items()))
        rows = [
            row
            | dataclasses.asdict(places[f"{row['id']}.png"])
            | {"mime": "image/png", "bytes_sha256": hashlib.sha256(media[row["id"]]).hexdigest()}
            for row in unseen
        ]
        told = [_about(row["id"], claim, truth) for row in unseen for claim, truth in _CLAIMS]
        tables = {"collect/candidates": (CANDIDATES, rows), "distort/candidates": (CANDIDATES, [])}
        for name, (schema, records) in {**tables, "describe/assertions": (ASSERTIONS, told)}.items():
            write_table(root / "artifacts" / f"{name}.parquet", schema, frame_of(schema, records))
        config = build_config(review.Config, "review", read_params(CHECKOUT)["review"])
        review.run(config, Place(root, root / ".work", root / "artifacts" / "review"))
        return judged(root)


_CLAIMS = ((faulty(Fault.FLAT, Degree.STRONG), True), (fine(Attribute.CONTRAST), False))
_PRESSED = 0.2


def _pressed(data: bytes) -> bytes:
    pixels = decode_image(data, ADMITTED).astype(np.float32)
    sink = io.BytesIO()
    Image.fromarray(np.clip(127.5 + _PRESSED * (pixels - 127.5), 0, 255).astype(np.uint8)).save(sink, "png")
    return sink.getvalue()


def _about(sample: str, claim: Claim, truth: bool) -> dict[str, object]:  # noqa: FBT001 - a column's value
    text = phrase(claim, "image", f"pressed/{sample}")
    key = {"assertion_id": digest(sample, text), "id": sample, "position": int(truth)}
    return {**key, "attribute": str(claim.attribute), "text": text, "origin": "planted", "planted_truth": truth}


def line(name: str, some: Iterable[Judged]) -> str:
    """One row of the table."""
    rows = list(some)
    truths = [one for one in rows if one.truth]
    accepted = [one for one in rows if one.accepted]
    right = sum(one.truth for one in accepted)
    precision = f"{right / len(accepted):.3f}" if accepted and truths else "-"
    recall = f"{right / len(truths):.3f}" if truths else "-"
    false = len(rows) - len(truths)
    taken = sum(one.accepted and not one.truth for one in rows)
    return f"{name:<28}{len(truths):>7}{false:>11}{taken:>20}{precision:>12}{recall:>9}"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    lies = folder_with("params.yaml", "artifacts/review/reviewed.parquet")
    parser.add_argument("--workspace", type=lies, default=str(CHECKOUT))
    named = parser.parse_args()
    found = balanced(judged(named.workspace))
    attributes = sorted({one.kind.partition(":")[0] for one in found})
    print(f"{'planted':<28}{'truths':>7}{'falsehoods':>11}{'falsehoods accepted':>20}{'precision':>12}{'recall':>9}")
    for attribute in attributes:
        print(line(attribute, (one for one in found if one.kind.partition(":")[0] == attribute)))
        for kind in sorted({one.kind for one in found if one.kind.startswith(attribute)}):
            print(line(f"  {kind.partition(': ')[2]}", (one for one in found if one.kind == kind)))
    print(line("all", found))
    print(f"\n{'tones pressed together':<28}")
    print(line("contrast", pressed(named.workspace)))
    return int(len(found) < LEAST)


if __name__ == "__main__":
    sys.exit(main())
