"""What of a workspace's run is told in the commit of a version."""

from pathlib import Path

import yaml

from infra.registry_commit import _located_lock


def test_a_workspaces_lock_names_code_and_pool_as_the_checkout_does():
    deps = [
        {"path": ".pool", "md5": "1.dir"},
        {"path": ".dvcignore", "md5": "2"},
        {"path": "/home/me/vital/tasks/annotation/collect.py", "md5": "3"},
    ]
    collect = {"cmd": 'PATH="/home/me/vital/.venv/bin:$PATH" python -m tasks collect', "deps": deps}
    content = yaml.safe_dump({"schema": "2.0", "stages": {"collect": collect, "bare": {"cmd": "true"}}}).encode()
    located = yaml.safe_load(_located_lock(content, Path("/home/me/vital")))
    assert located["stages"] == {
        "collect": {
            "cmd": 'PATH=".venv/bin:$PATH" python -m tasks collect',
            "deps": [{"path": "data/pool", "md5": "1.dir"}, {"path": "tasks/annotation/collect.py", "md5": "3"}],
        },
        "bare": {"cmd": "true"},
    }
