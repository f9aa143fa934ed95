"""The composite action and the pre-commit hook: their commands are run as a pipeline runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
yaml = pytest.importorskip("yaml")


def loaded(path: str):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_actions_check_annotates_and_writes_its_reports(tmp_path: Path) -> None:
    action = loaded(".github/actions/nanhunt/action.yml")
    (step,) = [step for step in action["runs"]["steps"] if step.get("name") == "Check"]
    shutil.copy(ROOT / "samples" / "checkpoint.pt", tmp_path)
    summary = tmp_path / "summary.md"
    environment = {
        **os.environ, "PATHS": "checkpoint.pt", "ARGUMENTS": "--fail-on error", "GITHUB_STEP_SUMMARY": str(summary),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-e", "-c", step["run"]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "::error file=checkpoint.pt" in done.stdout
    assert "NH501" in summary.read_text(encoding="utf-8")
    assert (tmp_path / "nanhunt.html").stat().st_size
    assert (tmp_path / "nanhunt.json").stat().st_size


def test_the_action_installs_what_it_lies_in() -> None:
    action = loaded(".github/actions/nanhunt/action.yml")
    (step,) = [step for step in action["runs"]["steps"] if step.get("name") == "Install nanhunt"]
    path = (ROOT / ".github" / "actions" / "nanhunt" / "../../..").resolve()
    assert "github.action_path }}/../../.." in step["run"]
    assert (path / "pyproject.toml").exists()


def test_the_hook_is_about_tensor_files() -> None:
    import re

    (hook,) = loaded(".pre-commit-hooks.yaml")
    assert re.search(hook["files"], "runs/x/model.safetensors")
    assert not re.search(hook["files"], "train.py")
    assert hook["entry"].split()[:2] == ["nanhunt", "check"]
