"""``vital data``: what it takes it gives back, and what it cannot know it asks for."""

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from datasets import load_from_disk

from tasks.exchange.benchmarks import Q_BENCH
from tasks.exchange.conversations import DATA_SETS
from tasks.exchange.polarity import Polarity
from tasks.exchange.tables import DEGRADATIONS
from tasks.records import CANDIDATES, EXAMPLES, INSTRUCTIONS, REJECTS
from tasks.shards import frame_of, read_table, write_table
from vital.data_commands import INSTRUCTIONS as NAMES
from vital.data_commands import POLARITIES

Vital = Callable[..., "subprocess.CompletedProcess[str]"]
RATED = '[{"image": "b.jpg", "mos": "3.50"},\r\n{"image": "a.jpg", "mos": "4.00"}]\r\n'
STARS = ["--polarity", "mos", "--range", "1", "5"]


@pytest.fixture
def rated(tmp_path: Path) -> Path:
    path = tmp_path / "rated.json"
    path.write_bytes(RATED.encode())
    return path


def test_the_names_of_polarities_are_those_of_the_exchange():
    assert tuple(Polarity) == POLARITIES
    assert (*DATA_SETS, Q_BENCH) == NAMES


def test_instructions_become_a_table_and_what_cannot_be_used_is_told(vital: Vital, tmp_path: Path):
    turns = [{"from": "human", "value": "<image>\nIs it sharp?\nA. Yes\nB. No"}, {"from": "gpt", "value": "B"}]
    records = [{"id": n, "image": f"{n}.png", "conversations": turns} for n in range(2)]
    (tmp_path / "labels.json").write_text(json.dumps(records))
    (tmp_path / "0.png").write_bytes(b"x")
    out = tmp_path / "q.parquet"
    arguments = ["data", "import", tmp_path / "labels.json", "--instructions", "q_pathway", "--out", out]
    done = vital(*arguments, "--root", tmp_path)
    assert done.returncode == 0, done.stderr
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    assert done.stdout.splitlines() == [
        f"{out}: 1 of 2 conversations (1 yes_no)",
        "  rejected 1: missing_medium",
        f"  sha256 {digest}",
    ]
    assert read_table(out, INSTRUCTIONS)["letter"].tolist() == ["B"]
    assert read_table(tmp_path / "q.rejects.parquet", REJECTS)["id"].tolist() == ["1"]
    assert "leave the declaration away" in vital(*arguments, *STARS).stderr
    assert "--root belongs to --instructions" in vital(*arguments[:3], "--out", out, "--root", tmp_path).stderr


def test_degradations_become_a_table_by_what_is_declared(vital: Vital, tmp_path: Path):
    (tmp_path / "t.csv").write_text("img,type,step\n0.png,fog,1\n1.png,gblur,2\n2.png,none,\n3.png,gblur,9\n")
    out = tmp_path / "d.parquet"
    plain = ["data", "import", tmp_path / "t.csv", "--out", out]
    keys = ["--degradations", "--media-key", "img", "--class-key", "type", "--level-key", "step"]
    meaning = ["--class", "gblur=blur", "--class", "none=null", "--level", "2=moderate"]
    done = vital(*plain, *keys, *meaning)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == [
        f"{out}: 2 of 4 records (1 blur, 1 null)",
        "  rejected 1: unknown_class",
        "  rejected 1: unknown_level",
    ]
    table = read_table(out, DEGRADATIONS)
    assert table["path"].tolist() == ["1.png", "2.png"]
    assert table["severity"].tolist()[0] == "moderate"
    assert read_table(tmp_path / "d.rejects.parquet", REJECTS)["id"].tolist() == ["0", "3"]
    assert "--degradations needs --class:" in vital(*plain, *keys).stderr
    assert "is declared as 'haze'" in vital(*plain, *keys, "--class", "fog=haze").stderr
    assert "--class 'fog' is not NAME=MEANING" in vital(*plain, *keys, "--class", "fog").stderr
    assert "belong to --degradations" in vital(*plain, *meaning).stderr


def test_descriptions_of_several_turns_are_told_and_stand_aside(vital: Vital, tmp_path: Path):
    turns = [{"from": "human", "value": "How is it?"}, {"from": "gpt", "value": "Noise is strong."}]
    records = [{"image": f"{n}.jpg", "conversations": turns * n} for n in (1, 2)]
    (tmp_path / "labels.json").write_text(json.dumps(records))
    out = tmp_path / "q.parquet"
    done = vital("data", "import", tmp_path / "labels.json", "--out", out)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert told[0].startswith(f"{out}: 1 rows of descriptions (1 records rejected, 1 single assertions")
    assert told[1:] == [f"{tmp_path}/q.rejects.parquet: what cannot be used", "  rejected 1: several_turns"]
    assert read_table(tmp_path / "q.rejects.parquet", REJECTS)["id"].tolist() == ["1"]
    (tmp_path / "labels.json").write_text(json.dumps(records[:1]))
    vital("data", "import", tmp_path / "labels.json", "--out", out)
    assert not (tmp_path / "q.rejects.parquet").exists()


@pytest.mark.parametrize("rejected", [0, 1, 3])
def test_an_export_says_how_many_records_of_the_file_it_leaves_out(rejected: int, vital: Vital, tmp_path: Path):
    turns = [{"from": "human", "value": "How is it?"}, {"from": "gpt", "value": "Noise is strong."}]
    records = [{"image": f"{n}.jpg", "conversations": turns * (1 + (n == rejected))} for n in range(4)]
    (tmp_path / "labels.json").write_text(json.dumps(records))
    table, out = tmp_path / "q.parquet", tmp_path / "back.json"
    vital("data", "import", tmp_path / "labels.json", "--out", table)
    told = vital("data", "export", table, "--out", out).stdout.splitlines()
    assert told[0] == f"{out}: 3 records, 0 of them changed since the import"
    assert told[1].startswith("left out: 1 records of the imported file")
    assert json.loads(out.read_text()) == [record for n, record in enumerate(records) if n != rejected]


@pytest.mark.parametrize("command", ["data", "data inspect", "data import", "data export"])
def test_commands_have_help(command: str, vital: Vital):
    done = vital(*command.split(), "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: vital {command}")


def test_a_list_is_imported_used_and_exported_as_the_same_bytes(rated: Path, vital: Vital, tmp_path: Path):
    table = tmp_path / "rated.parquet"
    done = vital("data", "import", rated, *STARS, "--out", table)
    assert done.stdout == f"{table}: 2 rows of human_scores, mos from 1 to 5\n"
    assert pd.read_parquet(table)["quality"].tolist() == [0.625, 0.75]
    out = tmp_path / "back.json"
    done = vital("data", "export", table, "--out", out)
    assert done.stdout == f"{out}: 2 records, 0 of them changed since the import\n"
    assert out.read_bytes() == rated.read_bytes()
    done = vital("data", "export", table, "--as", "hugging_face", "--out", tmp_path / "hub")
    assert done.returncode == 0, done.stderr
    assert load_from_disk(str(tmp_path / "hub"))["quality"][:] == [0.625, 0.75]
    assert vital("data", "import", tmp_path / "hub", "--out", tmp_path / "again.parquet").returncode == 0
    assert pq.read_table(tmp_path / "again.parquet").equals(pq.read_table(table))


def test_an_imported_list_is_what_opinions_are_held_against(vital: Vital, tmp_path: Path):
    scores = [round(0.1 + 0.08 * n, 2) for n in range(10)]
    names = [f"{n}.jpg" for n in range(10)]
    listed = [{"image": name, "mos": 100 * (1 - score)} for name, score in zip(names, scores, strict=True)]
    (tmp_path / "dmos.json").write_text(json.dumps(listed))
    table = tmp_path / "dmos.parquet"
    vital("data", "import", tmp_path / "dmos.json", "--polarity", "dmos", "--range", 0, 100, "--out", table)
    frame = pd.DataFrame({"name": names, "one": scores, "two": [score + 0.01 for score in scores]})
    frame.to_csv(tmp_path / "scores.csv", index=False)
    done = vital(
        *("opinions", "report", "--opinions", tmp_path / "scores.csv", "--scorers", "one,two", "--human", table),
        *("--human-id", "path", "--mos", "quality", "--polarity", "mos", "--range", 0, 1, "--bootstrap", 5, "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["human"]["mu_mos"]["value"] == 1


def test_inspect_tells_all_files_and_fails_if_one_cannot_be_imported(rated: Path, vital: Vital, tmp_path: Path):
    done = vital("data", "inspect", tmp_path)
    assert done.returncode == 1
    assert "cannot be imported" in done.stdout
    assert "declare --polarity mos|dmos|negated_dmos and --range LOW HIGH" in done.stderr
    done = vital("data", "inspect", rated, *STARS, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["meaning"] == {"polarity": "mos", "low": 1, "high": 5}


def test_the_22_lists_are_told_as_they_are(shared_data: Path, vital: Vital):
    done = vital("data", "inspect", shared_data / "labels" / "vital_series")
    assert done.returncode == 0, done.stderr
    assert "22 of the authors' 22 lists, 41629 media" in done.stdout
    assert "qbvideo_dev_single.json: 31 contradictions" in done.stdout
    csiq = next(line for line in done.stdout.splitlines() if "csiq" in line).split("  ")
    assert [part.strip() for part in csiq if part.strip()][1:] == (
        [
            "human_scores",
            "image, gt_score",
            "CSIQ",
            "negated_dmos",
            "-1 to 0",
            "-1",
            "0",
            "-0.3507",
            "866",
            "minus DMOS",
        ]
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    media = {"id": "a", "content_id": "a", "split": "train", "modality": "image", "source": "cat.JPG", "seed": 0}
    sizes = dict.fromkeys(("width", "height", "frames", "offset", "length", "severity"), 1) | {
        "fps": 0.0,
        "duration_s": 0.0,
    }
    texts = dict.fromkeys(("mime", "bytes_sha256", "shard"), "x")
    write_table(
        root / "artifacts/collect/candidates.parquet", CANDIDATES, frame_of(CANDIDATES, [media | sizes | texts])
    )
    write_table(root / "artifacts/distort/candidates.parquet", CANDIDATES, frame_of(CANDIDATES, []))
    example = {"example_id": "e", "task": "description", "modality": "image", "split": "train", "ids": ["a"]}
    example |= {"answers": ["Noise is strong"], "targets": [], "preference": None}
    write_table(root / "artifacts/assemble/examples.parquet", EXAMPLES, frame_of(EXAMPLES, [example]))
    (root / "artifacts/assemble/authors.json").write_text("[[]]")
    (root / "artifacts/assemble/hf").mkdir()
    (root / "artifacts/assemble/hf/dataset_dict.json").write_text("{}")
    return root


def test_a_workspace_gives_its_descriptions(workspace: Path, vital: Vital, tmp_path: Path):
    out = tmp_path / "q.json"
    done = vital("data", "export", workspace, "--as", "q_instruct", "--out", out)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(out.read_text())
    assert (record["image"], record["conversations"][1]["value"]) == ("collect/a.jpg", "Noise is strong.")
    done = vital("data", "import", out, "--out", tmp_path / "q.parquet")
    assert "1 single assertions, 0 sentences dropped" in done.stdout
    done = vital("data", "export", workspace, "--as", "authors", "--out", tmp_path / "authors.json")
    assert (tmp_path / "authors.json").read_text() == "[[]]"
    done = vital("data", "export", workspace, "--as", "hugging_face", "--out", tmp_path / "hf")
    assert [path.name for path in (tmp_path / "hf").iterdir()] == ["dataset_dict.json"]
    done = vital("data", "export", workspace, "--as", "hugging_face", "--out", out)
    assert f"{out} is a file: name a new folder" in done.stderr
    done = vital("data", "export", workspace, "--as", "q_instruct", "--split", "held_out", "--out", out)
    assert "the split held_out has no descriptions" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["import", "none.json", "--out", "x.parquet"], "none.json is missing"),
        (["import", "README.md", "--out", "x.parquet"], "README.md is not a JSON list of objects"),
        (["import", "docs", "--out", "x.parquet"], "docs is a folder that the library datasets did not write"),
        (["import", "x.json", "--out", "x.csv"], "is no .parquet file"),
        (["import", "x.json", "--polarity", "mos", "--out", "x.parquet"], "--polarity needs --range"),
        (["import", "x.json", "--range", "1", "5", "--out", "x.parquet"], "--range needs --polarity"),
        (["import", "x.json", "--polarity", "up", "--range", "1", "5", "--out", "x.parquet"], "'up' is not one of"),
        (["import", "x.json", "--polarity", "mos", "--range", "5", "1", "--out", "x.parquet"], "is empty"),
        (["inspect"], "Missing argument"),
        (["inspect", "docs"], "docs holds no .json"),
        (["export", "x.json", "--out", "y.json"], "x.json is no .parquet table"),
        (["export", "x.parquet", "--out", "docs"], "docs is a folder with files"),
        (["export", "x.parquet", "--as", "authors", "--out", "y.json"], "is made of a workspace"),
        (["export", "docs", "--out", "y.json"], "a workspace needs --as"),
        (["export", "x.parquet", "--split", "train", "--out", "y.json"], "--split belongs to --as q_instruct"),
        (["export", "x.parquet", "--as", "hugging_face", "--out", "README.md"], "x.parquet is missing"),
        (["export", "docs", "--as", "authors", "--out", "y.json"], "examples.parquet is missing"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(arguments: list[str], told: str, vital: Vital):
    done = vital("data", *arguments)
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
