"""``nanhunt run``: the options, and the few calls behind them. Imports torch only when a script is about to run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from nanhunt.cli import output as files
from nanhunt.errors import NanhuntError

if TYPE_CHECKING:
    from nanhunt.watch.family import Family
    from nanhunt.watch.incident import Incident
    from nanhunt.watch.session import Session


class RunCommand(TyperCommand):
    """Passes on everything after the script (or after ``-m MODULE``) untouched, options and ``--`` included."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Mark where the script's own arguments begin."""
        parsed: list[str] = super().parse_args(ctx, _marked(args, _taking_a_value(self.params)))
        return parsed


def _taking_a_value(params: Sequence[Any]) -> set[str]:
    options = (item for item in params if item.param_type_name == "option")
    valued = (item for item in options if not (item.is_flag or item.count))
    return {name for item in valued for name in item.opts}


def _marked(args: list[str], valued: set[str]) -> list[str]:
    """The arguments with ``--`` in front of the script, or behind the module's name."""
    place = 0
    while place < len(args) and args[place].startswith("-") and args[place] not in ("-", "--"):
        option = args[place]
        place += 2 if option in valued else 1
        if option.startswith("-m"):
            break
    return [*args[:place], "--", *args[place:]] if args[place : place + 1] != ["--"] else args


def register(app: typer.Typer) -> None:
    """Add ``run`` to the application."""
    app.command("run", cls=RunCommand, context_settings={"allow_extra_args": True})(run)


def run(
    context: typer.Context,
    script: Annotated[
        str, typer.Argument(metavar="SCRIPT [ARGUMENTS]...", help="Script to run, - for standard input.")
    ] = "",
    module: Annotated[
        str, typer.Option("-m", metavar="MODULE", help="Run a module instead, as python -m does.")
    ] = "",
    keep_going: Annotated[
        bool, typer.Option("--continue", help="Report and let the script run on instead of stopping it.")
    ] = False,
    max_reports: Annotated[int, typer.Option(min=1, help="Reports in all, with --continue.")] = 5,
    every_op: Annotated[
        bool,
        typer.Option("--every-op", help="Look at every operation from the start, inference too; slower."),
    ] = False,
    format: Annotated[str, typer.Option(help="What to write to standard error: text or json.")] = "text",
    output: Annotated[
        list[str] | None, typer.Option(help="Also write the report to FILE; .json or text by its suffix.")
    ] = None,
    capture_dir: Annotated[
        str, typer.Option(help="Where to put tensors of a failing step.")
    ] = "nanhunt-capture",
    patch: Annotated[
        str,
        typer.Option(metavar="FILE", help="Write the proven fix there, as a diff for git apply."),
    ] = "",
    tensorboard: Annotated[
        str, typer.Option(metavar="DIR", help="Log loss, gradient norm, largest logit and headroom per step.")
    ] = "",
) -> None:
    """Run a training script and, at its first NaN or infinity, name the operation and line that made it.

    The script behaves as always. It is stopped with exit code 1 at the first bad step, unless --continue is given;
    otherwise the exit code is its own.
    """
    if not script and not module:
        raise NanhuntError("no script was given", "Try: nanhunt run train.py [ARGUMENTS]...")
    if format not in ("text", "json"):
        raise NanhuntError(f"there is no format {format!r} here", "Use --format text or --format json.")
    from nanhunt.watch.runner import Script, exit_code, prepare

    arguments = (script, *context.args) if module and script else tuple(context.args)
    what = Script(module or script, tuple(arguments), bool(module))
    start = prepare(what)
    from nanhunt.watch.family import Family, Orders
    from nanhunt.watch.session import Session, Settings

    settings = Settings(keep_going, max_reports, every_op, capture_dir)
    session = Session(settings, report=_tell if format == "text" else _hold)
    orders = Orders(keep_going, max_reports, every_op, str(Path(capture_dir).absolute()), format != "text")
    with Family(orders, session) as family:
        with _logging(session, tensorboard), session:
            code = exit_code(start, session.raised)
        code = code or family.found  # it went on (--continue), caught the stop, or a child found something
        if family.is_first:
            _write(session, family, what.name, code, format, output or [])
            if patch:
                _write_patch(patch, [*session.incidents, *(item for _, item in family.reports())])
    raise typer.Exit(code)


def _write_patch(path: str, incidents: Sequence[Incident | dict[str, Any]]) -> None:
    """The diff of each incident that has one; where none has, say so and write nothing."""
    from nanhunt.watch.family import say
    from nanhunt.watch.message import patch_of

    text = "".join(dict.fromkeys(map(patch_of, incidents)))
    if text:
        files.write(_for_rank(path), text)
    elif incidents:
        say(f"nanhunt: {path} was not written: no edit was proven\n")


def _tell(incident: Incident) -> None:
    from nanhunt.watch.family import say
    from nanhunt.watch.message import incident_text

    say(incident_text(incident))


def _hold(incident: Incident) -> None:
    """With --format json everything is written at the end, as one document."""


def _logging(session: Session, folder: str) -> AbstractContextManager[object]:
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


def _write(
    session: Session, family: Family, script: str, code: int, format: str, outputs: Sequence[str]
) -> None:
    from nanhunt.watch.family import say
    from nanhunt.watch.message import all_clear, incident_text, run_json

    children = family.reports()
    steps = [session.steps, *family.steps()]
    family.add_unlooked(session.unlooked)
    incidents: list[Incident | dict[str, Any]] = [*session.incidents, *(item for _, item in children)]
    document = run_json(script, sum(steps), incidents, code, session.unlooked)
    every_op, processes = session.settings.every_op, sum(map(bool, steps))
    clear = all_clear(sum(steps), every_op, code, processes, session.unlooked)
    text = "".join([*map(incident_text, session.incidents), *(text for text, _ in children)]) or clear
    for path in outputs:
        files.write(_for_rank(path), document if path.endswith(".json") else text)
    if format == "json":
        say(document)
    elif not family.found:
        say(clear)
