"""The Typer application: options in, a handful of calls, an exit code. No arithmetic, no formatting."""

from __future__ import annotations

from typing import Annotated

import typer

from nanhunt import __version__
from nanhunt.cli import judge
from nanhunt.cli.run import register

app = typer.Typer(
    name="nanhunt",
    help="Find the rows, the format and the cause when a softmax or cross entropy turns NaN, and prove the fix.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Dtype = Annotated[
    list[str] | None,
    typer.Option(
        help="Judge in this dtype; repeatable. float64, float32, bfloat16, float16, float8_e4m3fn, float8_e5m2. "
        "Default: the dtype in the file."
    ),
]
Logits = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Tensor to judge as logits, globs allowed; repeatable."),
]
Targets = Annotated[
    str | None,
    typer.Option(
        metavar="[FILE:]NAME", help="Class labels, or probabilities of the logits' shape; globs allowed."
    ),
]
Shift = Annotated[
    bool | None,
    typer.Option(
        "--shift/--no-shift",
        help="Judge the logits at t against label t + 1, as a causal language model's loss does. "
        "Default: where that is recognised.",
    ),
]
ClassAxis = Annotated[int, typer.Option(help="Dimension of the classes; PyTorch's (N, C, d1) layout is 1.")]
StoredDtype = Annotated[
    str | None,
    typer.Option(help="What a |V2 or |V1 .npy holds (bfloat16, float8_e4m3fn, ...), which it cannot say."),
]
Temperature = Annotated[float, typer.Option(help="Divides the logits first.")]
IgnoreIndex = Annotated[int, typer.Option(help="Rows with this label do not count in the loss.")]
LabelSmoothing = Annotated[float, typer.Option(min=0.0, max=1.0, help="As in F.cross_entropy.")]
ClassWeights = Annotated[str | None, typer.Option(metavar="FILE[:NAME]", help="One weight per class.")]
Reduction = Annotated[str, typer.Option(help="mean or sum.")]
FailOn = Annotated[str, typer.Option(help="Exit with 1 from this severity on: error, warning, note, never.")]
Select = Annotated[
    list[str] | None,
    typer.Option(metavar="RULE", help="Only these rules: codes, names or prefixes like NH1."),
]
Ignore = Annotated[list[str] | None, typer.Option(metavar="RULE", help="Not these rules.")]
MaxRows = Annotated[int, typer.Option(min=1, help="Rows listed per finding.")]
Format = Annotated[str, typer.Option(help="text, json, github, junit, markdown or html.")]
Output = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE",
        help="Also write the report here, format by suffix (.json .xml .md .html .txt); repeatable.",
    ),
]
SaveRows = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Write one line per row to this .npz or .csv, for filtering."),
]
Config = Annotated[
    str | None, typer.Option(metavar="FILE", help="Read settings from this file, not from pyproject.toml.")
]
Isolated = Annotated[bool, typer.Option("--isolated", help="Read no configuration file.")]
Baseline = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="A saved JSON report: what is in it is known and does not fail."),
]
Statistics = Annotated[bool, typer.Option("--statistics", help="Also a table of rules by count.")]
ExitZero = Annotated[bool, typer.Option("--exit-zero", help="Exit with 0 even when there are findings.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Findings only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Healthy tensors and histograms too.")]


@app.command()
def check(
    context: typer.Context,
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Files, folders, or - for standard input.")
    ],
    dtype: Dtype = None,
    logits: Logits = None,
    targets: Targets = None,
    shift: Shift = None,
    class_axis: ClassAxis = -1,
    stored_dtype: StoredDtype = None,
    temperature: Temperature = 1.0,
    ignore_index: IgnoreIndex = -100,
    label_smoothing: LabelSmoothing = 0.0,
    class_weights: ClassWeights = None,
    reduction: Reduction = "mean",
    fail_on: FailOn = "warning",
    select: Select = None,
    ignore: Ignore = None,
    max_rows: MaxRows = 10,
    format: Format = "text",
    output: Output = None,
    save_rows: SaveRows = None,
    config: Config = None,
    isolated: Isolated = False,
    baseline: Baseline = None,
    statistics: Statistics = False,
    exit_zero: ExitZero = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Look for trouble in dumped logits, checkpoints or folders of them."""
    judge.survey(context, paths, compares=False)


@app.command()
def compare(
    context: typer.Context,
    path: Annotated[
        str | None, typer.Argument(metavar="[PATH]", help="A file, a folder, or - for standard input.")
    ] = None,
    dtype: Dtype = None,
    logits: Logits = None,
    targets: Targets = None,
    shift: Shift = None,
    class_axis: ClassAxis = -1,
    stored_dtype: StoredDtype = None,
    temperature: Temperature = 1.0,
    ignore_index: IgnoreIndex = -100,
    label_smoothing: LabelSmoothing = 0.0,
    class_weights: ClassWeights = None,
    reduction: Reduction = "mean",
    fail_on: FailOn = "warning",
    select: Select = None,
    ignore: Ignore = None,
    max_rows: MaxRows = 10,
    format: Format = "text",
    output: Output = None,
    save_rows: SaveRows = None,
    config: Config = None,
    isolated: Isolated = False,
    baseline: Baseline = None,
    statistics: Statistics = False,
    exit_zero: ExitZero = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run all four implementations side by side over every row; without PATH, on the articles' 3 x 3 batch."""
    judge.survey(context, [path] if path else [], compares=True)


@app.command()
def report(
    context: typer.Context,
    reports: Annotated[
        list[str], typer.Argument(metavar="REPORT...", help="JSON reports saved with --output.")
    ],
    fail_on: FailOn = "warning",
    format: Format = "text",
    output: Output = None,
    baseline: Baseline = None,
    statistics: Statistics = False,
    exit_zero: ExitZero = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Merge saved JSON reports and render them again, without the tensors."""
    judge.merge_saved(context, reports)


@app.command()
def rule(
    name: Annotated[
        str | None, typer.Argument(metavar="[CODE|NAME]", help="A rule, by code or name.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Explain all of them.")] = False,
) -> None:
    """Explain a rule: what, why, how to fix."""
    judge.explain_rules(name, every=every)


register(app)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"nanhunt {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Find the rows, the format and the cause when a softmax or cross entropy turns NaN, and prove the fix."""
