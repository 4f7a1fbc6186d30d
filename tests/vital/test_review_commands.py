"""``vital review`` as its users call it."""

from pathlib import Path

from tests.vital import conftest

vital = conftest.vital


def test_measured_reviews_cost_nothing(vital: conftest.Vital):
    done = vital("review", "plan")
    assert (done.returncode, done.stdout) == (0, "review is done by measurement: it makes no calls\n")


def test_a_plan_without_assertions_says_which_stage_makes_them(vital: conftest.Vital, tmp_path: object):
    done = vital("review", "plan", "--profile", "paper", "--workspace", tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"vital run --workspace {tmp_path} --stage collect --stage distort --stage describe" in line


def test_a_story_needs_a_review(vital: conftest.Vital, tmp_path: object):
    done = vital("review", "show", "abc", "--workspace", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("vital: artifacts/review is missing")
    assert done.stderr.count("\n") == 1


def test_the_dry_run_of_the_paper_profile_tells_when_the_calls_are_known_and_which_keys_are_not_set(
    vital: conftest.Vital, tmp_path: Path
):
    own = "describe.endpoints.polisher.key=KEY_OF_MY_OWN"
    done = vital("run", "--profile", "paper", "--workspace", tmp_path / "my own", "--set", own, "--dry-run")
    told = f"known when describe has run: vital review plan --workspace '{tmp_path}/my own'"
    assert told in done.stdout
    assert "describe: the number of calls is known when collect and distort have run" in done.stdout
    assert "key of gpt-5 (judge): set OPENAI_API_KEY" in done.stdout
    assert "key of describe.polisher: set KEY_OF_MY_OWN in the environment" in done.stdout
