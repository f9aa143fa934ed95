"""What README.md, samples/README.md and .github/GUIDE.md show is what the program does.

``python tests/test_readme.py`` writes the outputs anew; read the diff before committing it.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from warm import Warm

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "samples/README.md", ".github/GUIDE.md")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d+\.\d+(?:e[-+]?\d+)?|\d+e[-+]?\d+")
ROUNDING = 1e-3
"""Below it a number is a rounding error, which processors with other vector units make differently."""
PROMPT = "$ "
NEXT = "\x01"


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of that language."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [body for found, body in FENCE.findall(text) if found == language]


@dataclass(frozen=True)
class Session:
    """A ```console block: commands at a prompt, each followed by what it writes."""

    document: str
    text: str

    @property
    def commands(self) -> list[str]:
        return [line.removeprefix(PROMPT) for line in self.text.splitlines() if line.startswith(PROMPT)]

    def replayed(self, folder: Path, warm: Warm) -> str:
        """The block as running its commands in ``folder`` writes it; blanks at the end of a line are dropped."""
        outputs = run(self.commands, folder, warm)
        text = "".join(
            f"{PROMPT}{command}\n{said}" for command, said in zip(self.commands, outputs, strict=True)
        )
        return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).rstrip("\n") + "\n"


def sessions() -> list[Session]:
    return [Session(document, text) for document in DOCUMENTS for text in blocks(document, "console")]


def run(commands: list[str], folder: Path, warm: Warm) -> list[str]:
    """What each command writes to a pipe 80 columns wide, both streams as they come, in one shell."""
    # The subshell hands the status on, so that `echo $?` shows that of the command before it.
    script = "".join(f"{command}\nkept=$?; printf '\\001'; (exit $kept)\n" for command in commands)
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment(warm), text=True, encoding="utf-8",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return done.stdout.split(NEXT)[:-1]


def environment(warm: Warm) -> dict[str, str]:
    """The terminal of the documents: 80 columns, no colour, the nanhunt of this Python."""
    kept = {name: os.environ[name] for name in ("HOME", "SYSTEMROOT", "TMPDIR") if name in os.environ}
    folders = (str(warm.command.parent), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))
    path = os.pathsep.join(folders)
    return kept | {"PATH": path, "COLUMNS": "80", "LINES": "24", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}


def playground(folder: Path) -> Path:
    """A copy of the samples to run commands in, so that nothing they write stays."""
    shutil.copytree(ROOT / "samples", folder / "samples", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def skeleton(text: str) -> list[str]:
    """The lines without their decimal numbers, and without the padding that depends on their length."""
    return [re.sub(r"[ ─━]+", " ", NUMBER.sub("#", line)).strip() for line in text.splitlines()]


def differing_numbers(one: str, two: str) -> list[tuple[str, str]]:
    pairs = zip(NUMBER.findall(one), NUMBER.findall(two), strict=True)
    return [(a, b) for a, b in pairs if not close(float(a), float(b))]


def close(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-5 * abs(a) or max(abs(a), abs(b)) < ROUNDING


@pytest.mark.parametrize(
    "session", sessions(), ids=lambda session: f"{session.document}: {session.commands[0]}"
)
def test_commands_write_what_is_shown(session, tmp_path, warm):
    shown, written = session.text, session.replayed(playground(tmp_path), warm)
    assert skeleton(shown) == skeleton(written)
    assert differing_numbers(shown, written) == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) < 12_000


@pytest.mark.parametrize("code", [code for document in DOCUMENTS for code in blocks(document, "python")])
def test_python_runs(code, tmp_path, monkeypatch):
    import torch

    monkeypatch.chdir(playground(tmp_path))
    logits = torch.randn(16, 10, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.arange(16) % 10
    given = {"logits": logits, "labels": labels, "step": 100, "os": os, "torch": torch}
    model = SimpleNamespace(predict=lambda _: logits)
    exec(code, namespace := given.copy())
    for name, value in list(namespace.items()):
        if name.startswith("test_"):
            value(model, (None, labels))


def test_importing_nanhunt_is_enough_to_watch(tmp_path, warm):
    assert run(["python -c 'import nanhunt; print(type(nanhunt.watch()).__name__)'"], tmp_path, warm) == [
        "Watch\n"
    ]


def commands_in_pipelines() -> list[str]:
    return re.findall(r"\bnanhunt (?:check|report|run) .*", "".join(blocks(".github/GUIDE.md", "yaml")))


@pytest.mark.parametrize("command", commands_in_pipelines())
def test_pipeline_commands_run(command, tmp_path, warm):
    said, status = run([command, "echo $?"], playground(tmp_path), warm)
    assert status == "1\n", said  # the samples hold faults
    for output in re.findall(r"--output (\S+)", command):
        assert (tmp_path / output).stat().st_size > 0


@pytest.mark.parametrize("settings", blocks(".github/GUIDE.md", "toml"))
def test_settings_are_read(settings, tmp_path, warm):
    (playground(tmp_path) / "pyproject.toml").write_text(settings, encoding="utf-8")
    said, status = run(["nanhunt check samples/labels.npy", "echo $?"], tmp_path, warm)
    assert "pyproject.toml" not in said
    assert status == "2\n"  # nothing to judge, not a wrong setting


def test_the_tree_is_as_drawn():
    (tree,) = blocks(".github/CONTRIBUTING.md", "text")
    folder = ROOT
    for line in tree.splitlines():
        names = re.split(r"\s{2,}", line.strip())[0].split(", ")
        folder = folder if line.startswith(" ") else ROOT / names[0]
        for name in names:
            assert (folder / name if line.startswith(" ") else folder).exists(), line


def test_every_option_named_exists(warm):
    commands = ("", "check", "diff", "report", "rule", "run")
    told = "".join(run([f"nanhunt {name} --help" for name in commands], ROOT, warm))
    for document in DOCUMENTS:
        lines = re.findall(r"nanhunt [a-z-].*|`--.*?`", (ROOT / document).read_text(encoding="utf-8"))
        named = set(re.findall(r"(?<!\S)`?(--[a-z][a-z-]+)", "\n".join(lines)))
        assert named - set(re.findall(r"--[a-z][a-z-]+", told)) <= {"--lr"}  # of the user's script


def rewritten(document: str, folder: Callable[[], Path], warm: Warm) -> str:
    text = (ROOT / document).read_text(encoding="utf-8")

    def block(match: re.Match[str]) -> str:
        language, body = match.groups()
        if language != "console":
            return match[0]
        return f"```console\n{Session(document, body).replayed(playground(folder()), warm)}```"

    return FENCE.sub(block, text)


if __name__ == "__main__":
    import tempfile

    with contextlib.closing(Warm()) as process:
        for name in DOCUMENTS:
            text = rewritten(name, lambda: Path(tempfile.mkdtemp()), process)
            (ROOT / name).write_text(text, encoding="utf-8")
