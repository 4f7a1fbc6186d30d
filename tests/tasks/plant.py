"""A small coherent plant: every table of the line, with real media, as the stages publish them.

Load it with ``importlib`` (tests are no package); ``build_plant(root)`` makes a workspace that passes the gate and
that ``correlate`` and ``report`` can read. The quality behind the numbers falls with severity, the scorers and the
models see it with noise of declared size, and everything is drawn from one fixed seed.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import skimage.data
from PIL import Image

from models.distortions import GENERATOR, distort_image, words
from models.levels import level_of
from models.opinion import summarise
from tasks.annotation import agreement
from tasks.records import (
    ASSERTIONS,
    CANDIDATES,
    EXAMPLES,
    OPINIONS,
    PREDICTIONS,
    REJECTS,
    REVIEWED,
    VOTES,
    RowSchema,
    Split,
    Task,
)
from tasks.shards import digest, frame_of, write_archive, write_json, write_table

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")
SPLITS = (*[Split.TRAIN] * 6, *[Split.WARM_UP] * 2, *[Split.HELD_OUT] * 4)
TYPES = ("gaussian_blur", "white_noise", "jpeg")
SCORERS = ("fragments", "two_branch", "levels", "multi_scale", "multi_task", "ranking")
JUDGES = ("spatial", "spectral", "statistical")
DECODERS = ("nano", "micro", "mini")
NOISE = {
    "base-micro": 0.25,
    "vital-base-micro": 0.06,
    "linear-probe": 0.15,
    **{f"vital-zero-{name}": 0.2 for name in DECODERS},
    **{f"vital-warm-up-{name}": 0.08 for name in DECODERS},
    **{f"base-warm-up-{name}": 0.22 for name in DECODERS},
    "vital-assistant-micro": 0.1,
    "vital-probe": 0.12,
    "base-probe": 0.18,
    "vital-rali": 0.12,
}
READOUTS = {"linear-probe": "linear_probe", "vital-rali": "rali"}
"""Of the models without levels."""
TRUE_TEXT = {
    "gaussian_blur": "Sharpness is low",
    "white_noise": "Strong noise is visible",
    "jpeg": "Blocking is visible",
}
FALSE_TEXT = {
    "gaussian_blur": "Edges are crisp",
    "white_noise": "Surfaces look clean",
    "jpeg": "The picture is artifact-free",
}
ATTRIBUTE = {"gaussian_blur": "sharpness", "white_noise": "noise", "jpeg": "compression"}


def build_plant(root: Path, *, videos: bool = True) -> None:
    """Write ``artifacts/*`` and ``metrics/*`` of a whole line below ``root``."""
    rng = np.random.default_rng(7)
    media = list(_media(videos=videos))
    pool = _write_pool(root, media)
    pool["quality"] = [_quality(row, rng) for row in pool.to_dict("records")]
    opinions = _write_opinions(root, pool, rng)
    assertions = _write_assertions(root, pool)
    reviewed = _write_review(root, assertions)
    _write_examples(root, pool, opinions, reviewed)
    _write_training(root, rng)
    _write_predictions(root, pool, opinions, rng)


def write(root: Path, stage: str, name: str, schema: RowSchema, frame: pd.DataFrame) -> None:
    """Publish one table."""
    write_table(root / "artifacts" / stage / f"{name}.parquet", schema, frame)


def _rejects(root: Path, stage: str, rows: list[tuple[str, str, str]]) -> None:
    records = [{"stage": stage, "id": key, "reason": reason, "detail": detail} for key, reason, detail in rows]
    write(root, stage, "rejects", REJECTS, frame_of(REJECTS, records))


def _media(*, videos: bool) -> Iterator[tuple[dict[str, Any], bytes]]:
    for number, split in enumerate(SPLITS):
        picture = getattr(skimage.data, PHOTOGRAPHS[number % 4])()[..., :3]
        top, left = 40 * (number // 4), 60 * (number // 4)
        pixels = np.ascontiguousarray(picture[top : top + 128, left : left + 160])
        data = _encode(pixels)
        content = digest(data)
        base = {"content_id": content, "split": split, "modality": "image", "mime": "image/png", "width": 160}
        base |= {"height": 128, "frames": 1, "fps": 0.0, "duration_s": 0.0, "source": f"photos/{number:02d}.png"}
        yield {**base, "id": content, "severity": 0, "seed": 0}, data
        for turn, kind in enumerate(TYPES):
            for severity in {1 + (number + turn) % 5, 1 + (number + turn + 2) % 5}:
                child = _child(content, kind, severity)
                yield base | child, _encode(distort_image(pixels, kind, severity, seed=number))
    for number, split in enumerate((Split.TRAIN, Split.HELD_OUT) if videos else ()):
        frames = getattr(skimage.data, PHOTOGRAPHS[number])()[150:246, 60:220, :3]
        data = _clip(frames, crf=18)
        content = digest(data)
        base = {"content_id": content, "split": split, "modality": "video", "mime": "video/mp4", "width": 128}
        base |= {"height": 96, "frames": 12, "fps": 12.0, "duration_s": 1.0, "source": f"clips/{number}.mp4"}
        yield {**base, "id": content, "severity": 0, "seed": 0}, data
        for severity in (2, 5):
            child = _child(content, "h264_compression", severity)
            yield base | child, _clip(frames, crf=30 + 4 * severity)


def _child(content: str, kind: str, severity: int) -> dict[str, Any]:
    key = {"id": digest(content, kind, severity), "parent_id": content, "distortion": kind, "severity": severity}
    return {**key, "seed": 1, "generator": GENERATOR}


def _encode(pixels_HWC: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, "PNG")
    return buffer.getvalue()


def _clip(picture: np.ndarray, crf: int) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=12, options={"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for shift in range(12):
            window = np.ascontiguousarray(picture[:, shift : shift + 128])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(window, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def _write_pool(root: Path, media: list[tuple[dict[str, Any], bytes]]) -> pd.DataFrame:
    frames = []
    for stage, own in (("collect", lambda row: "parent_id" not in row), ("distort", lambda row: "parent_id" in row)):
        rows = [(row, data) for row, data in media if own(row)]
        places = write_archive(
            root / "artifacts" / stage / "media/items-00000.tar", [(row["id"], data) for row, data in rows]
        )
        records = [
            dict.fromkeys(CANDIDATES.columns) | row | asdict(places[row["id"]]) | {"bytes_sha256": digest(data)}
            for row, data in rows
        ]
        write(root, stage, "candidates", CANDIDATES, frame_of(CANDIDATES, records))
        frames.append(frame_of(CANDIDATES, records))
    refused = [("photos/torn.jpg", "truncated", "the image data is broken"), ("notes.bin", "not_media", "no medium")]
    _rejects(root, "collect", refused)
    refused_child = (digest("unchanged"), "no_change", "color_diffusion 4 of photos/03.png changes nothing")
    _rejects(root, "distort", [refused_child])
    originals, children = map(len, frames)
    counts = {"files": originals + 3, "ignored": 1, "candidates": originals, "rejects": 2}
    write_json(root / "metrics/collect.json", counts)
    write_json(root / "metrics/distort.json", {"planned": children + 1, "children": children, "rejects": 1})
    return pd.concat(frames, ignore_index=True)


def _quality(row: dict[str, Any], rng: np.random.Generator) -> float:
    return float(np.clip(0.85 - 0.13 * row["severity"] + rng.normal(0, 0.06), 0.05, 0.95))


def _write_opinions(root: Path, pool: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    scores_NS = np.clip(pool["quality"].to_numpy()[:, None] + rng.normal(0, 0.07, (len(pool), len(SCORERS))), 0, 1)
    unread = len(pool) - 1  # one child that no scorer could read
    summary = summarise(scores_NS)
    records = [
        {
            "id": pool["id"][i],
            "bytes_sha256": pool["bytes_sha256"][i],
            "scorers": list(SCORERS),
            "versions": ["1"] * len(SCORERS),
            "scores": scores_NS[i].tolist(),
            "mu": float(summary.mu_N[i]),
            "sigma": float(summary.sigma_N[i]),
            "pmod": summary.pmod_N5[i].tolist(),
            "mu_clamped": bool(summary.clamped_N[i]),
        }
        for i in range(len(pool))
        if i != unread
    ]
    opinions = frame_of(OPINIONS, records)
    write(root, "score", "opinions", OPINIONS, opinions)
    _rejects(root, "score", [(pool["id"][unread], "truncated", "the video data is broken")])
    return opinions


def _write_assertions(root: Path, pool: pd.DataFrame) -> pd.DataFrame:
    records, silent = [], []
    for row in pool.itertuples():
        kind = row.distortion if row.distortion in TYPES else None
        if row.modality == "video":
            silent.append((row.id, "not_sampled", "descriptions are made of a sample"))
            continue
        texts = [("exposure", "The lighting is sufficient", "describer", None)]
        if kind is not None and row.severity >= 3:
            texts += [(ATTRIBUTE[kind], f"{TRUE_TEXT[kind]} in this image", "describer", None)]
            texts += [(ATTRIBUTE[kind], TRUE_TEXT[kind], "planted", True)]
            texts += [(ATTRIBUTE[kind], FALSE_TEXT[kind], "planted", False)]
        for position, (attribute, text, origin, truth) in enumerate(texts):
            key = {"assertion_id": digest(row.id, text), "id": row.id, "position": position}
            records.append(key | {"attribute": attribute, "text": text, "origin": origin, "planted_truth": truth})
    assertions = frame_of(ASSERTIONS, records)
    write(root, "describe", "assertions", ASSERTIONS, assertions)
    _rejects(root, "describe", silent)
    return assertions


def _write_review(root: Path, assertions: pd.DataFrame) -> pd.DataFrame:
    votes, reviewed, refused = [], [], []
    for number, row in enumerate(assertions.to_dict("records")):
        true = row["planted_truth"] is not False and number % 9 != 0
        key = {"assertion_id": row["assertion_id"], "id": row["id"], "prompt_version": "v1", "attempt": 0}
        for judge in JUDGES:
            fooled = judge == "spectral" and number % 4 == 0
            said = {"verdict": "agree" if true or fooled else "severe", "revision": None}
            said |= {"reason": f"{row['attribute']} measured by the {judge} family"}
            votes += [
                key | said | {"phase": "cross", "judge": judge, "model": f"{judge}-1", "round": turn}
                for turn in (1, 2, 3)
            ]
        if true:
            said = {"verdict": "agree", "revision": None, "reason": "confirmed"}
            votes += [
                key | said | {"phase": "self", "judge": "annotator", "model": "structural-1", "round": turn}
                for turn in (1, 2, 3)
            ]
        reason = "unanimous" if true else "severe_deviation"
        reviewed.append(row | {"kept": true, "reason": reason})
        if not true:
            refused.append((row["assertion_id"], reason, row["text"]))
    write(root, "review", "votes", VOTES, frame_of(VOTES, votes))
    frame = frame_of(REVIEWED, reviewed)
    write(root, "review", "reviewed", REVIEWED, frame)
    ballots = agreement.first_ballots(votes)
    truth = {row["assertion_id"]: row["planted_truth"] for row in reviewed if row["origin"] == "planted"}
    errors = agreement.error_correlations(agreement.planted_errors(ballots, truth))
    figures = {"judge_agreement": agreement.pairwise_agreement(ballots), "error_phi": errors}
    write_json(root / "metrics/review.json", figures)
    _rejects(root, "review", refused)
    return frame


def _write_examples(root: Path, pool: pd.DataFrame, opinions: pd.DataFrame, reviewed: pd.DataFrame) -> None:
    judged = {row.id: row for row in opinions.itertuples()}
    rows = [row for row in pool.itertuples() if row.id in judged]
    records: list[dict[str, Any]] = []
    for row in rows:
        records.append(_example(Task.SINGLE, [row], [_sentence(row, judged[row.id].mu)], [judged[row.id].pmod]))
        if row.severity:
            records.append(_example(Task.DISTORTION, [row], [_named(row)], []))
    kept = reviewed[reviewed["kept"].astype(bool)]
    for row in rows:
        told = kept[(kept["id"] == row.id) & (kept["origin"] == "describer")]
        records += [_example(Task.DESCRIPTION, [row], [text], []) for text in told.sort_values("position")["text"]]
    records += list(_pairs(rows, judged))
    frame = frame_of(EXAMPLES, records).drop_duplicates("example_id")
    write(root, "assemble", "examples", EXAMPLES, frame)
    silent = [(key, "no_opinion", "the score stage has no opinion of it") for key in pool["id"] if key not in judged]
    planted = kept[kept["origin"] == "planted"]
    refused = [(key, "planted", text) for key, text in zip(planted["assertion_id"], planted["text"], strict=True)]
    _rejects(root, "assemble", silent + refused)


def _named(row: Any) -> str:
    return words(row.distortion, row.severity)


def _sentence(row: Any, quality: float) -> str:
    return f"The quality of the {row.modality} is {level_of(min(max(quality, 0.1), 0.9))}"


def _pairs(rows: list[Any], judged: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Pairs of one split and modality: 4 better, 4 worse, 2 ties of every ten."""
    for split, modality in sorted({(row.split, row.modality) for row in rows}):
        members = sorted((r for r in rows if (r.split, r.modality) == (split, modality)), key=lambda r: judged[r.id].mu)
        if len(members) < 20:
            continue
        for i in range(10):
            low, high = members[i], members[-1 - i]
            first, second, preference = [(high, low, 1.0), (low, high, 0.0), (low, members[i + 1], 0.5)][
                0 if i < 4 else 1 if i < 8 else 2
            ]
            answers = [_sentence(r, judged[r.id].mu) for r in (first, second)]
            targets = [judged[r.id].pmod for r in (first, second)]
            yield _example(Task.PAIR, [first, second], answers, targets) | {"preference": preference}


def _example(task: Task, rows: list[Any], answers: list[str], targets: list[Any]) -> dict[str, Any]:
    ids = [row.id for row in rows]
    key = {"example_id": digest(task, ids, answers), "task": task, "modality": rows[0].modality}
    return key | {"split": rows[0].split, "ids": ids, "answers": answers, "targets": targets, "preference": None}


def _write_training(root: Path, rng: np.random.Generator) -> None:
    def curve(steps: int) -> list[dict[str, float | int | None]]:
        losses = 1.2 * np.exp(-np.arange(steps) / 20) + 0.4 + rng.normal(0, 0.03, steps)
        return [
            {
                "step": step,
                "learning_rate": 1e-3,
                "loss": float(loss),
                "grad_norm": 1.0,
                "examples": 32,
                "loss_single": float(loss) * 0.8,
                "loss_pair": float(loss) * 1.2 if step % 2 else None,
            }
            for step, loss in enumerate(losses)
        ]

    write_json(root / "artifacts/pretrain/history.json", curve(80))
    write_json(root / "artifacts/pretrain/recipe.json", {"decoder": "micro"})
    write_json(root / "artifacts/assistant/history.json", curve(30))
    for variant in ("model", "control"):
        write_json(root / f"artifacts/linear_probe/{variant}/history.json", curve(25))
    write_json(root / "artifacts/answer/accuracies.json", {"accuracies": list(_accuracies()), "differences": []})
    for decoder in DECODERS:
        for variant in ("warm", "control"):
            write_json(root / f"artifacts/warm_up/{decoder}/{variant}/history.json", curve(20))


def _accuracies() -> Iterator[dict[str, Any]]:
    for model, lift in (("vital-assistant-micro", 0.3), ("vital-base-micro", 0.0), ("base-micro", 0.0)):
        for where, chance in (("all", 0.4), ("yes_no", 0.5), ("which", 0.25)):
            for measure, value in (("greedy", lift), ("likeliest", chance + lift), ("blind", 0.45), ("chance", chance)):
                row = {"source": "line", "model": model, "slice": where, "measure": measure, "value": value}
                yield row | {"low": None, "high": None, "questions": 40, "contents": 4}


def _write_predictions(root: Path, pool: pd.DataFrame, opinions: pd.DataFrame, rng: np.random.Generator) -> None:
    mu = dict(zip(opinions["id"], opinions["mu"], strict=True))
    held_out = pool[(pool["split"] == Split.HELD_OUT) & pool["id"].isin(mu)]
    records = []
    for row in held_out.itertuples():
        common = {"id": row.id, "content_id": row.content_id, "modality": row.modality, "distortion": row.distortion}
        common |= {"severity": row.severity, "target": mu[row.id], "target_kind": "machine_opinion"}
        for model, noise in NOISE.items():
            score = float(np.clip(mu[row.id] + rng.normal(0, noise), 0.1, 0.9))
            levels = [] if model in READOUTS else summarise([[score]]).pmod_N5[0].tolist()
            readout = READOUTS.get(model, "expectation")
            records.append(common | {"model": model, "score": score, "level_probs": levels, "readout": readout})
        if row.modality == "image":
            score = float(12 - 8 * mu[row.id] + rng.normal(0, 2))
            records.append(common | {"model": "niqe", "score": score, "level_probs": [], "readout": "niqe"})
    write(root, "predict", "predictions", PREDICTIONS, frame_of(PREDICTIONS, records))
    _rejects(root, "predict", [])


def read_results(path: Path) -> dict[str, Any]:
    """Read a JSON result."""
    return json.loads(path.read_text())
