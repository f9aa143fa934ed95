"""What other tools say about the scripts of the fault suite: noticed, right line named, false alarms.

    python tests/benchmarks/compare_watchers.py [--details]

``sherlorch`` (PyPI) is asked at each backward about the loss, and afterwards about the gradients, which is the most
its interface allows; it is left out when it is not installed. ``hooks`` tests every module's output, as transformers'
DebugUnderflowOverflow does. A line counts as named when it is the innermost one of the script in the tool's report.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import re
import runpy
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nanhunt.watch.numbers import tensors_in
from nanhunt.watch.session import Session, Settings
from nanhunt.watch.stopping import Stopped

WATCH = Path(__file__).parent.parent / "watch"
MARK = re.compile(r"# <- fault: (.*)$")
Verdict = int | None
"""Line named, 0 for "something is wrong", None for silence."""


class Noticed(BaseException):
    """Raised by a tool's adapter: ends the script."""

    def __init__(self, line: int) -> None:
        self.line = line


def nanhunt(script: Path) -> Verdict:
    found: list[Any] = []
    every_op = "# settings: every_op" in script.read_text()
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Settings(every_op=every_op, capture_dir=folder), found.append)
        with session, contextlib.suppress(Stopped):
            execute(script)
    if not found:
        return None
    sites = [culprit.site for culprit in found[0].culprits if culprit.site]
    return sites[0].line if sites else 0


def detect_anomaly(script: Path) -> Verdict:
    with warnings.catch_warnings(record=True) as told, torch.autograd.set_detect_anomaly(True):
        warnings.simplefilter("always")
        try:
            execute(script)
        except RuntimeError as error:
            if "returned nan values" not in str(error):
                raise
            return last_line("".join(str(item.message) for item in told), script)
    return None


def hooks(script: Path) -> Verdict:
    def look(module: torch.nn.Module, inputs: object, output: object) -> None:
        if any(t.is_floating_point() and not t.isfinite().all() for t in tensors_in((inputs, output))):
            raise Noticed(0)  # it prints the module, no line

    handle = torch.nn.modules.module.register_module_forward_hook(look)
    try:
        execute(script)
    except Noticed as noticed:
        return noticed.line
    finally:
        handle.remove()
    return None


def sherlorch(script: Path) -> Verdict:
    import sherlorch as tool  # type: ignore[import-not-found]

    original = torch.autograd.backward

    def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
        ask(tensors_in(tensors))
        original(tensors, *args, **kwargs)
        ask(leaf.grad for leaf in leaves() if leaf.grad is not None)

    def ask(tensors: Any) -> None:
        for tensor in tensors:
            if tracker.has_issue(tensor):
                try:
                    told = str(tracker.diagnose(tensor)).split("Path to target")[0]
                except KeyError:  # a gradient: it has seen no backward pass
                    raise Noticed(0) from None
                raise Noticed(last_line(told, script))

    gc.collect()
    before = {id(item) for item in gc.get_objects() if type(item) is torch.nn.Parameter}

    def leaves() -> list[torch.Tensor]:
        objects = gc.get_objects()
        return [item for item in objects if type(item) is torch.nn.Parameter and id(item) not in before]

    torch.autograd.backward = backward
    try:
        with tool.trace(capture_stack=True) as tracker:
            execute(script)
    except Noticed as noticed:
        return noticed.line
    finally:
        torch.autograd.backward = original
    return None


def execute(script: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        runpy.run_path(str(script), run_name="__main__")


def last_line(text: str, script: Path) -> int:
    named = re.findall(rf"{script.name}\"?(?::|, line )(\d+)", text)
    return int(named[-1]) if named else 0


TOOLS: dict[str, Callable[[Path], Verdict]] = {
    "nanhunt run": nanhunt,
    "detect_anomaly": detect_anomaly,
    "hooks": hooks,
    "sherlorch": sherlorch,
}


def marked_line(script: Path) -> int:
    return next(n for n, line in enumerate(script.read_text().splitlines(), 1) if MARK.search(line))


def verdict(tool: Callable[[Path], Verdict], script: Path) -> Verdict:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            return tool(script)
        except Exception as error:
            print(
                f"{tool.__name__} broke {script.stem}: {type(error).__name__}: {error}", file=sys.__stderr__
            )
            return None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--details", action="store_true", help="one line for each script")
    details = parser.parse_args().details
    faults, healthy = sorted((WATCH / "faults").glob("*.py")), sorted((WATCH / "healthy").glob("*.py"))
    print(
        f"| tool | noticed, of {len(faults)} faults | right line named | alarms on {len(healthy)} healthy scripts |"
    )
    print("|---|---|---|---|")
    for name, tool in TOOLS.items():
        if name == "sherlorch":
            with contextlib.suppress(ImportError):
                __import__(name)
            if name not in sys.modules:
                continue
        found = {script: verdict(tool, script) for script in faults}
        alarms = [script for script in healthy if verdict(tool, script) is not None]
        noticed = sum(value is not None for value in found.values())
        right = sum(value == marked_line(script) for script, value in found.items())
        print(f"| {name} | {noticed} | {right} | {len(alarms)} |")
        if details:
            print(
                *(f"  {script.stem}: {value} for {marked_line(script)}" for script, value in found.items()),
                sep="\n",
            )
            print(*(f"  alarm on {script.stem}" for script in alarms), sep="\n")


if __name__ == "__main__":
    main()
