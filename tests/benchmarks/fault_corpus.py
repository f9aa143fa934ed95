"""Every script with a planted fault: is it named, is it patched, and does the patch hold when the script is rerun?

    python tests/benchmarks/fault_corpus.py [--only WORD] [--verbose] [SCRIPT ...]

Each runs in a fork of this process: torch is loaded once. A false proof is a patch that nanhunt calls proven and that
does not hold when it is applied by git and the script run without nanhunt.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

HERE = Path(__file__).resolve().parent
WATCH = HERE.parent / "watch"
CORPUS = sorted([*(WATCH / "corpus").glob("*.py"), *(WATCH / "corpus").glob("*/main.py")])
sys.path.insert(0, str(WATCH))

import rerun  # noqa: E402
from test_faults import FAULTS, HEALTHY, MARK, hunt  # noqa: E402

from nanhunt.watch.message import incident_text  # noqa: E402


@dataclass(frozen=True)
class Outcome:
    """What came of one script."""

    name: str
    alarm: bool = False
    named: bool = False
    code: bool = True
    """Whether code is the cause, so that a patch is expected."""
    patched: bool = False
    holds: bool = False
    kept: bool = True
    """Whether what was finite is the same when the script is rerun, where the proof says that nothing changed."""
    text: str = ""


def judge(script: Path) -> Outcome:
    """Hunt in a copy of the script, apply what is proven, and run it again."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        copy = copied(script, Path(name))
        os.chdir(copy.parent)
        sys.path.insert(0, str(copy.parent))
        found, _ = hunt(copy, Path(name) / "capture")
        if not found:
            return Outcome(title(script))
        incident = found[0]
        site = incident.culprits[0].site if incident.culprits else None
        named = site is not None and (site.file, site.line) == marked(copy)
        text, code = incident_text(incident), "# cause: " not in script.read_text()
        if incident.patch is None or not incident.patch.diff:
            return Outcome(title(script), True, named, code, text=text)
        before = rerun.steps(copy)
        rerun.apply(incident.patch.diff, copy.parent)
        after = rerun.steps(copy)
        left = [fault for step in after for fault in step.faults]
        kept = (
            bool(incident.patch.bends or incident.patch.proof.changed) or not rerun.changed(before, after)[1]
        )
        return Outcome(title(script), True, named, code, True, not left, kept, text + "\n".join(left))


def copied(script: Path, folder: Path) -> Path:
    """The script in a folder of its own, with the files beside a main.py."""
    if script.name == "main.py":
        shutil.copytree(script.parent, folder, dirs_exist_ok=True)
        return folder / script.name
    return Path(shutil.copy(script, folder))


def marked(script: Path) -> tuple[str, int]:
    """File and line of the planted fault, which may be in a file beside the script."""
    files = script.parent.glob("*.py")
    lines = (
        (file.name, n, line) for file in files for n, line in enumerate(file.read_text().splitlines(), 1)
    )
    return next((name, n) for name, n, line in lines if MARK.search(line))


def judged(scripts: Sequence[Path]) -> list[Outcome]:
    """Each script in a process of its own, two at a time. Not in a Pool: nanhunt ends a task of one differently."""
    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(_in_child, scripts))


def _in_child(script: Path) -> Outcome:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_send, args=(script, sender))
    child.start()
    sender.close()
    try:
        outcome: Outcome = receiver.recv()
    except EOFError:
        outcome = Outcome(title(script), text="the process died")
    child.join()
    return outcome


def _send(script: Path, sender: Connection) -> None:
    sender.send(judge(script))


def title(script: Path) -> str:
    return script.parent.name if script.name == "main.py" else script.stem


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scripts", nargs="*", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    scripts = [path.resolve() for path in arguments.scripts] or [*FAULTS, *CORPUS]
    scripts = [script for script in scripts if arguments.only in title(script)]
    outcomes = judged(scripts)
    alarms = judged([] if arguments.scripts or arguments.only else HEALTHY)
    for one in outcomes:
        state = "false proof" if one.patched and not one.holds else "patched" if one.patched else "-"
        print(
            f"{one.name:34} {'named' if one.named else 'NOT NAMED':10} {state if one.code else f'{state} (no code)'}"
        )
        if arguments.verbose:
            print(one.text)
    code = [one for one in outcomes if one.code]
    patched = sum(one.patched and one.holds for one in code)
    print(f"{len(outcomes)} faults: {sum(one.named for one in outcomes)} named at the right line")
    print(f"{len(code)} caused by code: {patched} patched, {patched / max(len(code), 1):.0%}")
    print(f"false proofs: {sum(one.patched and not one.holds for one in outcomes)}")
    print(f"changed though said not to be: {', '.join(one.name for one in outcomes if not one.kept) or 0}")
    print(f"{len(alarms)} healthy scripts: {sum(one.alarm for one in alarms)} alarms")


if __name__ == "__main__":
    main()
