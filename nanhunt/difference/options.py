"""What the user asks of a comparison of two dumps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nanhunt.load.options import ReadOptions
from nanhunt.operations.options import JudgeOptions
from nanhunt.options import again, option
from nanhunt.results.options import ReportOptions


@dataclass(frozen=True, kw_only=True)
class DiffOptions(ReportOptions):
    """What counts as a difference."""

    rtol: float | None = option(
        None,
        help="|a - b| up to atol + rtol |a| is no difference, as in torch.testing.assert_close(b, a).",
        is_number=True,
        at_least=0.0,
    )
    atol: float | None = option(None, help="See --rtol.", is_number=True, at_least=0.0)
    max_ulp: float | None = option(
        None,
        help="Up to this many steps of the narrower dtype are no difference. Default, without --rtol and "
        "--atol: 4, or as many at the tensor's mean magnitude (64 in float32 and float64, in which sums are formed).",
        is_number=True,
        at_least=0.0,
    )
    rename: Sequence[str] = option(
        (),
        metavar="OLD=NEW",
        help="A regular expression, and what the names of A have in B in its place (re.sub), in the order given.",
    )
    logits: Sequence[str] = again(ReadOptions, "logits")
    targets: str | None = again(ReadOptions, "targets")
    stored_dtype: str | None = again(ReadOptions, "stored_dtype")
    layout: str | None = again(ReadOptions, "layout")
    exclude: Sequence[str] = again(ReadOptions, "exclude")
    select: Sequence[str] = again(JudgeOptions, "select")
    ignore: Sequence[str] = again(JudgeOptions, "ignore")
    max_rows: int = again(JudgeOptions, "max_rows")
