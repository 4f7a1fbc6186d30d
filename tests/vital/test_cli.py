"""The command line: every wrong input is one clear line and a non-zero exit code; scoring starts fast and light."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import pytest
import skimage.data
from PIL import Image

from infra.data_set import data_set_name
from infra.workspace import CHECKOUT
from vital.cli import _OF_A_WORKSPACE, cli, main
from vital.media_files import find_media

Vital = Callable[..., "subprocess.CompletedProcess[str]"]

LONG = "x" * 300
"""No file system takes it as a name."""

LEVELS = ["high", "good", "fair", "poor", "low"]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two photographs, one of them deeper and one broken file."""
    folder = tmp_path_factory.mktemp("media")
    (folder / "deep").mkdir()
    Image.fromarray(skimage.data.coffee()).save(folder / "coffee.jpg", quality=95)
    Image.fromarray(skimage.data.chelsea()).save(folder / "deep" / "cat.png")
    (folder / "notes.txt").write_text("no medium")
    return folder


@pytest.mark.parametrize(
    "command",
    ["", "score", "assess", "run", "status", "registry", "registry list", "registry get", "store", "store use"],
)
def test_every_command_has_help(command: str, vital: Vital):
    done = vital(*command.split(), "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: vital")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["scores"], "No such command 'scores'"),
        (["score"], "Missing argument"),
        (["score", "--jsn", "x"], "No such option"),
        (["score", "nowhere.jpg"], "nowhere.jpg: there is no such file or folder"),
        (["score", "README.md"], "README.md: "),
        (["assess", "--model", "no such model", "x.jpg"], "does not name a model"),
        (["assess", "--model", "nobody#prod", "x.jpg"], "nobody"),
        (["run", "--profile", "huge"], "unknown profile 'huge'; the profiles are embedded, "),
        (["run", "--pool", "/nowhere/at/all"], "there is no pool /nowhere/at/all"),
        (["run", "--stage", "destroy"], "unknown stage 'destroy'; the stages are collect, "),
        (["run", "--set", "pretrain.stepz=3"], "unknown key; the keys of pretrain are"),
        (["run", "--set", "pretrain"], "is not of the form section.key=value"),
        (["run", "--seeds", "a,b"], "write whole numbers"),
        (["run", "--seeds", "1,1"], "a seed repeats"),
        (["run", "--workspace", "tasks"], "is no workspace"),
        (["run", "--workspace", "/proc/nothing", "--profile", "embedded-long"], "cannot write the workspace"),
        (["run", "--profile", "paper"], "this machine lacks what the profile paper needs"),
        (["status", "--pool", "docs"], "holds no run yet: vital run with the same options makes one"),
        (["registry", "list", "--repo", "/"], "/ is not a git repository"),
        (["score", ""], "an empty name names no file"),
        (["score", "--explain-cache", "README.md"], "README.md: not an image or video format"),
        (["score", "--scorer", "nobody", "README.md"], "unknown scorer 'nobody'; known are fragments, "),
        (["score", "--scorer", "dover", "README.md"], "dover needs its official weights: put DOVER.pth into"),
        (["status", "--workspace", "tasks"], "holds no run yet"),
        (["registry", "show", "nobody"], "nobody"),
        (["score", LONG], "cannot be read: File name too long"),
        (["run", "--pool", LONG], "cannot read the pool"),
        (["run", "--pool", "~nobody-of-that-name/x"], "cannot read the pool"),
        (["run", "--pool", ""], "the pool has no name"),
        (["run", "--pool", "s3://", "--dry-run"], "s3:// is no pool: name a folder"),
        (["run", "--pool", "gs://bucket/x", "--dry-run"], "is no pool: name a folder"),
        (["run", "--workspace", LONG], "File name too long"),
        (["registry", "list", "--repo", LONG], "is neither a folder, nor the URL of a git repository"),
    ],
)
def test_a_wrong_input_is_one_line(arguments: list[str], told: str, vital: Vital):
    done = vital(*arguments)
    assert done.returncode != 0
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("vital: ")
    assert told in line


@pytest.mark.parametrize("content", ["{", "[]", '{"colour": "red"}', '{"profile": 3}', '{"settings": []}'])
def test_a_broken_description_of_a_workspace_is_one_line(content: str, vital: Vital, tmp_path: Path):
    (tmp_path / "workspace.json").write_text(content)
    done = vital("status", "--workspace", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"vital: {tmp_path / 'workspace.json'} does not describe a workspace (")


def test_an_operating_systems_refusal_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr(cli, "main", refuse)
    with pytest.raises(SystemExit) as caught:
        main(["status"])
    assert caught.value.code == 1
    assert capsys.readouterr().err == "vital: Permission denied: /somewhere\n"


def test_an_empty_pool_is_one_line(vital: Vital, tmp_path: Path):
    done = vital("run", "--pool", tmp_path)
    assert (done.returncode, done.stderr) == (1, f"vital: the pool {tmp_path} is empty: put photos or clips into it\n")


def test_no_answer_from_the_users_server_is_one_line(vital: Vital):
    done = vital("run", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 1
    assert done.stderr.startswith("vital: no answer from the Prefect server")
    assert len(done.stderr.splitlines()) == 1


def test_json_has_one_object_a_line_and_broken_media_among_them(media: Path, vital: Vital, tmp_path: Path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes((media / "coffee.jpg").read_bytes()[:2000])
    done = vital("score", "--json", media, broken, tmp_path / "none.png")
    assert done.returncode == 1
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(record["path"]).name for record in records] == ["coffee.jpg", "cat.png", "broken.jpg", "none.png"]
    for record in records[:2]:
        assert set(record) == {"path", "scores", "mu", "sigma", "pmod", "level"}
        scores = np.array(list(record["scores"].values()))
        assert len(scores) == 6
        assert ((scores >= 0) & (scores <= 1)).all()
        assert record["mu"] == pytest.approx(scores.mean(), abs=1e-9)
        assert record["sigma"] == pytest.approx(scores.std(), abs=1e-9)
        assert sum(record["pmod"]) == pytest.approx(1.0, abs=1e-6)
        assert record["level"] == LEVELS[4 - min(int(record["mu"] * 5), 4)]
    assert all(set(record) == {"path", "reason", "error"} for record in records[2:])
    assert [record["reason"] for record in records[2:]] == ["truncated", "missing"]


def test_a_file_that_was_rejected_is_scored_when_it_can_be(media: Path, vital: Vital, tmp_path: Path):
    photo, out = tmp_path / "photo.jpg", tmp_path / "out.jsonl"
    whole = (media / "coffee.jpg").read_bytes()
    photo.write_bytes(b"x" * len(whole))
    os.utime(photo, ns=(10**18, 10**18))
    ask = ("score", "--scorer", "ranking", "--out", out, photo)
    assert vital(*ask).returncode == 1
    photo.write_bytes(whole)
    os.utime(photo, ns=(10**18, 10**18))  # size and time say that nothing has changed
    unchanged = vital(*ask)
    assert (unchanged.returncode, len(out.read_text().splitlines())) == (1, 1)
    again = vital(*ask, "--retry-rejects")
    assert again.returncode == 0, again.stderr
    rejected, result = (json.loads(line) for line in out.read_text().splitlines())
    assert (rejected["reason"], rejected["path"]) == ("unknown_format", result["path"])
    assert 0.0 <= result["mu"] <= 1.0
    assert vital(*ask).returncode == 0
    assert "--retry-rejects goes with --out" in vital("score", "--retry-rejects", photo).stderr


def test_named_scorers_alone_are_asked(media: Path, vital: Vital):
    asked = ("--scorer", "level_probs", "--scorer", "ranking", "--scorer", "level_probs")
    done = vital("score", *asked, "--json", media / "coffee.jpg")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    everyone = json.loads(vital("score", "--json", media / "coffee.jpg").stdout)["scores"]
    assert told["scores"] == {name: everyone[name] for name in ("level_probs", "ranking")}
    assert told["mu"] == pytest.approx((everyone["level_probs"] + everyone["ranking"]) / 2)


def test_the_cache_is_explained_without_computing(media: Path, vital: Vital):
    asked = ("score", "--explain-cache", "--scorer", "ranking", "--scorer", "dover")
    done = vital(*asked, "--json", media, media / "coffee.jpg")
    assert done.returncode == 0, done.stderr
    plans = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(plan["scorer"], plan["modality"]) for plan in plans] == [("ranking", "image"), ("dover", "image")]
    assert all(plan["cached"] + plan["to_compute"] == 2 for plan in plans)
    assert plans[1]["version"].startswith("vital-1+DOVER.pth")
    table = vital(*asked, media)
    assert table.returncode == 0, table.stderr
    assert "to compute" in table.stdout
    assert plans[0]["why"] in table.stdout
    unknown = vital("score", "--explain-cache", "--scorer", "nobody", media)
    assert unknown.returncode == 1
    assert "unknown scorer 'nobody'" in unknown.stderr


def test_the_table_names_every_file_and_succeeds(media: Path, vital: Vital):
    done = vital("score", media)
    assert done.returncode == 0, done.stderr
    assert "coffee.jpg" in done.stdout
    assert "cat.png" in done.stdout
    assert "multiscale_attention" in done.stdout


def test_a_folder_without_media_is_told(vital: Vital, tmp_path: Path):
    done = vital("score", tmp_path)
    assert (done.returncode, done.stderr) == (1, f"vital: {tmp_path}: the folder holds no photos or clips\n")


def test_scoring_imports_nothing_heavy(media: Path, checkout: Path):
    script = (
        "import sys\nfrom vital.cli import main\n"
        f"try:\n    main(['score', '--json', {str(media / 'coffee.jpg')!r}])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'prefect', 'dvc', 'pandas', 'pyarrow', 'transformers', 'boto3'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=checkout, capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_help_is_instant_and_imports_no_pipeline(checkout: Path):
    script = "import sys\nfrom vital.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
    script += "print(sorted({'torch', 'prefect', 'dvc', 'pandas', 'boto3'} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], cwd=checkout, capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_without_arguments_the_help_is_shown_as_it_is_laid_out(vital: Vital):
    done = vital()
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: vital")
    assert "\n  score" in done.stderr


def test_a_plan_looks_for_inputs_where_a_new_workspace_will_find_them(vital: Vital, checkout: Path):
    if not (checkout / "data" / "pool").is_dir():
        pytest.skip("the sample pool is not here: dvc pull data.dvc")
    done = vital("run", "--profile", "embedded-long", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "Nothing is missing on this machine." in done.stdout


def test_a_plan_says_that_a_pool_is_a_single_file(vital: Vital):
    done = vital("run", "--pool", "README.md", "--dry-run")
    assert "README.md is a file and no manifest" in done.stdout


def test_a_plan_has_the_stages_that_are_asked_for(vital: Vital):
    done = vital("run", "--profile", "embedded-long", "--stage", "collect", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^ ?(\w+) +(?:run|up to date)", done.stdout, re.MULTILINE) == ["collect"]


def test_a_plan_of_a_reannotation_says_what_is_compared_and_recorded(vital: Vital, tmp_path: Path):
    done = vital("run", "--reannotate", "--profile", "embedded-long", "--workspace", tmp_path / "new", "--dry-run")
    assert done.returncode == 0, done.stderr
    told = re.findall(r"^ ?(\w+) +(?:run|up to date)", done.stdout, re.MULTILINE)
    assert told == ["collect", "distort", "score", "describe", "review", "assemble", "validate", "compare"]
    name = data_set_name(tmp_path / "new")
    assert f"compare: {name} has no version yet, so there is nothing to compare with" in done.stdout
    assert f"compare: records {name}@v0.0.1 in stage prod" in done.stdout


def test_a_plan_of_seeds_names_the_workspace_of_each(vital: Vital):
    done = vital("run", "--profile", "embedded-long", "--seeds", "3,4", "--dry-run")
    assert done.returncode == 0, done.stderr
    for seed in (3, 4):
        assert f"embedded-long-seed{seed}" in done.stdout


def test_nobody_acts_on_one_checkout_while_standing_in_another(vital: Vital, checkout: Path, tmp_path: Path):
    for name in ("flows/line.py", "dvc.yaml", "params.yaml", "prefect.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    inside = tmp_path / "flows"
    for command in (("run",), ("status",), ("registry", "list"), ("store", "show")):
        done = vital(*command, cwd=inside)
        assert done.returncode == 1
        assert f"belongs to the checkout {checkout}, and you stand in {tmp_path}" in done.stderr
    assert vital("registry", "list", "--repo", str(checkout), cwd=inside).returncode == 0


def test_who_stands_in_a_workspace_is_told_that_the_checkout_is_meant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")

    def told(*arguments: str) -> str:
        context = click.Context(cli)
        cli.resolve_command(context, list(arguments))
        return capsys.readouterr().err

    (tmp_path / "workspace.json").write_text("{}")
    assert told("status") == ""  # a file of that name alone makes no workspace
    (tmp_path / "dvc.yaml").write_text("stages: {}")
    for words in (["status"], ["run", "--dry-run"], ["review", "plan"], ["opinions", "drift"]):
        (line,) = told(*words).splitlines()
        assert line == (
            f"vital: acting on the checkout {CHECKOUT}, not on the workspace that you stand in: "
            f"--workspace {tmp_path} means that"
        )
    for words in (["run", f"--workspace={tmp_path}"], ["run", "--pool", "x"], ["registry", "list"], ["opinions", "x"]):
        assert told(*words) == ""


def test_the_readme_names_the_commands_that_say_which_checkout_is_meant(checkout: Path):
    (told,) = re.findall(r"In a workspace's folder (.*?) say that", (checkout / "README.md").read_text(), re.DOTALL)
    assert set(re.findall(r"`(.*?)`", told)) == {" ".join(words) for words in _OF_A_WORKSPACE}


def test_a_folder_that_cannot_be_listed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "locked").mkdir()
    Image.fromarray(skimage.data.coffee()).save(tmp_path / "coffee.jpg")
    scandir = os.scandir

    def refuse(path: str) -> Iterator[os.DirEntry[str]]:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_media([str(tmp_path)])
    assert [(named.path.name, str(named.problem or "")) for named in found] == [
        ("locked", "cannot be listed: Permission denied"),
        ("coffee.jpg", ""),
    ]


def test_a_name_with_control_characters_or_foreign_letters_is_printed_harmlessly(tmp_path: Path) -> None:
    photo = tmp_path / "\x1b[31mred\n😀.png"
    Image.new("RGB", (64, 64), (90, 120, 60)).save(photo)
    (tmp_path / "broken\nvital: fine.jpg").write_bytes(b"")
    names = [str(photo), str(tmp_path / "broken\nvital: fine.jpg")]
    program = [sys.executable, "-c", "from vital.cli import main; main()", "score", *names]
    found = subprocess.run(
        program, capture_output=True, check=False, cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": "latin-1"}
    )
    assert found.returncode == 1
    assert b"\x1b" not in found.stdout
    assert b"\\x1b[31mred\\n" in found.stdout
    assert found.stderr.decode("latin-1").splitlines() == [
        f"vital: {tmp_path}/broken\\nvital: fine.jpg: the file has no bytes"
    ]
