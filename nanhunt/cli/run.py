"""What ``nanhunt run`` does, in a few calls. Imports torch only when a script is about to run."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nanhunt.cli import output as files
from nanhunt.cli.options import Given
from nanhunt.errors import NanhuntError
from nanhunt.watch.options import RunOptions, WatchOptions

if TYPE_CHECKING:
    from nanhunt.watch.family import Family, Orders
    from nanhunt.watch.incident import Incident
    from nanhunt.watch.runner import Script
    from nanhunt.watch.session import Session


def run(given: Given, words: Sequence[str], module: str) -> None:
    """Runs the script of the first of ``words`` with the others, or the module, and exits; reports what went bad.

    Raises NanhuntError where there is no script, and as ``_replayed`` does.
    """
    options = given.part(RunOptions)
    if options.replay:
        raise typer.Exit(_replayed(options.replay, options, verbose=given.part(WatchOptions).verbose))
    orders = _orders(given, options)
    from nanhunt.watch.runner import exit_code, prepare

    what = _script(words, module)
    start = prepare(what)
    from nanhunt.watch.family import Family
    from nanhunt.watch.session import Session, Settings

    settings = given.part(Settings)
    telling = functools.partial(_tell, settings.verbose)
    session = Session(settings, report=telling if options.format == "text" else _hold)
    with Family(orders, session) as family:
        with _logging(session, session.settings.tensorboard), session:
            code = exit_code(start, session.raised)
        code = code or family.found  # it went on (--continue), caught the stop, or a child found something
        if family.is_first:
            _write(session, family, what.name, code, options)
    raise typer.Exit(code)


def _replayed(path: str, options: RunOptions, *, verbose: bool) -> int:
    """Repeat a saved step and report: 1 where it goes bad again, 0 where it does not here.

    Raises NanhuntError for a file that holds no step, and for one that cannot be repeated here.
    """
    from nanhunt.watch.message import incident_text, run_json
    from nanhunt.watch.replay import load

    replay = load(path)
    found = replay.incident()
    code = int(found is not None)
    finite = (
        f"nanhunt: step {replay.step}, repeated from {path}, is finite here (it was not: {replay.what})\n"
    )
    text = incident_text(found, verbose=verbose) if found is not None else finite
    incidents = [found] if found is not None else []
    _put(options, incidents, text, run_json(path, 1, incidents, code), said=False)
    return code


def _script(words: Sequence[str], module: str) -> Script:
    """Raises NanhuntError where there is none."""
    from nanhunt.watch.runner import Script

    if module:
        return Script(module, tuple(words), module=True)
    if not words or not words[0]:
        raise NanhuntError("no script was given", "Try: nanhunt run train.py [ARGUMENTS]...")
    return Script(words[0], tuple(words[1:]))


def _orders(given: Given, options: RunOptions) -> Orders:
    """For child processes, which may work in other folders."""
    from nanhunt.watch.family import Orders

    orders = given.part(Orders)
    return replace(
        orders, capture_dir=str(Path(orders.capture_dir).absolute()), quiet=options.format != "text"
    )


def _write_patch(path: str, incidents: Sequence[Incident | dict[str, Any]]) -> None:
    """The diff of each incident that has one; where none has, say so and write nothing."""
    from nanhunt.watch.family import say
    from nanhunt.watch.message import patch_of

    text = "".join(dict.fromkeys(map(patch_of, incidents)))
    if text:
        files.write(_for_rank(path), text)
    elif incidents:
        say(f"nanhunt: {path} was not written: no edit was proven\n")


def _tell(verbose: bool, incident: Incident) -> None:
    from nanhunt.watch.family import say
    from nanhunt.watch.message import incident_text

    say(incident_text(incident, verbose=verbose))


def _hold(incident: Incident) -> None:
    """With --format json everything is written at the end, as one document."""


def _logging(session: Session, folder: str | None) -> AbstractContextManager[object]:
    if not folder:
        return nullcontext()
    from nanhunt.watch.tensorboard import Log

    log: AbstractContextManager[object] = Log(session, folder)
    return log


def _for_rank(path: str) -> str:
    """``report.json`` as ``report-rank-1.json`` where several processes would write the same file."""
    if os.environ.get("WORLD_SIZE", "1") == "1" or "RANK" not in os.environ:
        return path
    file = Path(path)
    return str(file.with_name(f"{file.stem}-rank-{os.environ['RANK']}{file.suffix}"))


def _write(session: Session, family: Family, script: str, code: int, options: RunOptions) -> None:
    from nanhunt.watch.message import all_clear, incident_text, run_json

    children = family.reports()
    steps = [session.steps, *family.steps()]
    family.add_unlooked(session.unlooked)
    incidents: list[Incident | dict[str, Any]] = [*session.incidents, *(item for _, item in children)]
    document = run_json(script, sum(steps), incidents, code, session.unlooked)
    every_op, processes = session.settings.every_op, sum(map(bool, steps))
    clear = all_clear(sum(steps), every_op, code, processes, session.unlooked)
    own = (incident_text(incident, verbose=session.settings.verbose) for incident in session.incidents)
    text = "".join([*own, *(text for text, _ in children)]) or clear
    _put(options, incidents, text, document, said=family.found)
    if options.patch:
        _write_patch(options.patch, incidents)


def _put(
    options: RunOptions,
    incidents: Sequence[Incident | dict[str, Any]],
    text: str,
    document: str,
    *,
    said: bool,
) -> None:
    """Write the report where it was asked for; ``said``: it stands on standard error as text already."""
    from nanhunt.watch import sarif
    from nanhunt.watch.family import say

    for path in options.output:
        log = sarif.document(incidents) if path.endswith(".sarif") else ""
        files.write(_for_rank(path), log or (document if path.endswith(".json") else text))
    if options.format != "text":
        say(sarif.document(incidents) if options.format == "sarif" else document)
    elif not said:
        say(text)
