"""One hand-built Report for all renderers: a comparison, a weight, dumps by step, errors, hostile names."""

from __future__ import annotations

from dataclasses import replace

from nanhunt.load.tree import coordinates
from nanhunt.results.finding import Finding, RemedyResult, Severity
from nanhunt.results.report import ReadError, Report
from nanhunt.results.tensor import (
    Health,
    Histogram,
    Implementation,
    RowBin,
    RowView,
    Targets,
    TensorReport,
    Truth,
    WorstRow,
)

NAN, INF = float("nan"), float("inf")
HOSTILE = (
    "<script>alert(1)</script>\"'`|*_[bold]x[/bold]\x1b[31m\r\n::error::pwned \u202egnp.\U0001f480 ${{7*7}} {{7*7}}"
    + "n" * 200
)

FUSED = RemedyResult(
    title="F.cross_entropy on the raw logits",
    snippet="loss = torch.nn.functional.cross_entropy(logits, targets)",
    works=True,
    rows=1,
    bad_rows_after=0,
    max_loss_error=2.96e-5,
)
CLIPPING = RemedyResult(
    title="gradient clipping",
    snippet="torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
    works=False,
    rows=1,
    bad_rows_after=1,
    max_loss_error=None,
)
EXP_OVERFLOW = Finding(
    code="NH101",
    name="exp-overflow",
    severity=Severity.WARNING,
    count=1,
    rows=(1,),
    message="row 1: max 1000 > 88.72, the largest x whose exp is finite in float32",
    remedies=(FUSED, CLIPPING),
)
UNDERFLOW = Finding(
    code="NH201",
    name="probability-underflow",
    severity=Severity.WARNING,
    count=1,
    rows=(1,),
    message="row 1: the label's logit -1000 lies 2000 below the maximum; exp is 0 below -103.97 in float32",
    remedies=(FUSED,),
)
ARTICLES_WORST = WorstRow(
    row=1,
    cause="NH101",
    max=1000.0,
    label=2,
    classes=(2, 0, 1),
    logits=(-1000.0, 1000.0, 1.0),
    views=(
        RowView("naive", INF, (0.0, NAN, 0.0), (NAN, NAN, NAN)),
        RowView("log-of-softmax", INF, (0.0, 1.0, 0.0), (NAN, NAN, NAN)),
        RowView("logsumexp", 2000.0, (0.0, 1.0, 0.0), (-0.33333334, 0.33333334, 0.0)),
        RowView("fused", 2000.0, (0.0, 1.0, 0.0), (-0.33333334, 0.33333334, 0.0)),
        RowView("truth", 2000.0, (0.0, 1.0, 0.0), (-1 / 3, 1 / 3, 0.0)),
    ),
)
ARTICLES = TensorReport(
    file="articles-batch",
    tensor="",
    role="logits",
    operation="cross-entropy",
    fused_call="F.cross_entropy",
    stored_dtype="float32",
    dtype="float32",
    shape=(3, 3),
    rows=3,
    classes=3,
    targets=Targets("the articles", 0),
    health=Health(0, 0, 0, 0, 0, -1000.0, 1000.0),
    implementations={
        "naive": Implementation(INF, 1, 1, 1, 0, 1, 2.4e-8),
        "log-of-softmax": Implementation(INF, 0, 1, 1, 0, 1, 2.4e-8),
        "logsumexp": Implementation(667.2747802734375, 0, 0, 0, 0, 0, 2.4e-8),
        "fused": Implementation(667.2747802734375, 0, 0, 0, 0, 0, 2.4e-8),
    },
    truth=Truth(667.2748787618),
    findings=(EXP_OVERFLOW, UNDERFLOW),
    affected_rows=1,
    histogram=Histogram(-4, (1, 0, 0, 0, 3, 2, 0, 0, 0, 0, 0, 0, 0, 1), (0,) * 13 + (1,), 0, 0, 9, 9),
    strip=(RowBin(0, 0, 2.0, ()), RowBin(1, 1, 1000.0, (("NH101", 1),)), RowBin(2, 2, 3.0, ())),
    worst_rows=(ARTICLES_WORST,),
)

NAN_LOGITS = Finding(
    code="NH001",
    name="nan-logits",
    severity=Severity.ERROR,
    count=3,
    rows=(5, 17, 90),
    message="row 5: 4 of 32,000 logits are NaN",
    remedies=(
        RemedyResult(
            title="drop those rows before the loss",
            snippet="keep = logits.isfinite().all(-1)\nloss = F.cross_entropy(logits[keep], targets[keep])",
            works=True,
            rows=3,
            bad_rows_after=0,
            max_loss_error=None,
        ),
        RemedyResult("nan_to_num on the loss", "loss = loss.nan_to_num()", False, 3, 3, None),
    ),
)
MANY_OVERFLOW = Finding(
    code="NH101",
    name="exp-overflow",
    severity=Severity.WARNING,
    count=471,
    rows=(2, 9, 31, 33, 40, 41, 57, 60, 61, 70),
    message="row 2: max 97.25 > 88.72, the largest x whose exp is finite in float32",
    remedies=(
        RemedyResult(FUSED.title, FUSED.snippet, True, 471, 0, 2.96e-4),
        RemedyResult(CLIPPING.title, CLIPPING.snippet, False, 471, 471, None),
    ),
)
HEADROOM = Finding(
    code="NH401",
    name="low-headroom",
    severity=Severity.NOTE,
    count=816,
    rows=(0, 2, 4, 6, 8, 10, 12, 14, 16, 18),
    message="row 0: max 80.5 is within 10 % of 88.72, the largest x whose exp is finite in float32",
    remedies=(RemedyResult(FUSED.title, FUSED.snippet, True, 816, 0, 2.1e-6),),
)


def _dump(step: int, largest: float, findings: tuple[Finding, ...], affected: int) -> TensorReport:
    """A step of a language model: 4,096 rows of 32,000 classes, in 512 bins."""
    bins = []
    for index in range(512):
        first = 8 * index
        causes = [("NH001", 1)] if affected and first in (0, 16, 88) else []
        causes += [("NH101", 5 if index < 295 else 4)] if affected and index % 5 == 0 else []
        causes += [("NH401", 4)] if findings and index % 5 in (2, 3) else []
        bins.append(RowBin(first, first + 7, largest - (first % 7), tuple(causes)))
    return TensorReport(
        file=f"dumps/step-{step}.npz",
        tensor="logits",
        role="logits",
        operation="cross-entropy",
        fused_call="F.cross_entropy",
        stored_dtype="float32",
        dtype="float32",
        shape=(4096, 32000),
        rows=4096,
        classes=32000,
        targets=Targets(f"dumps/step-{step}.npz:labels", 12),
        health=Health(None, None, None, None, None, -41.25, largest),
        implementations={},
        truth=None,
        findings=findings,
        affected_rows=affected,
        histogram=Histogram(
            -20,
            tuple(int(3e5 * 2.0 ** -abs(e)) for e in range(-20, 7)),
            (*(int(3e5 * 2.0 ** -abs(e + 1)) for e in range(-20, 6)), 0),
            40,
            3,
            2_097_152,
            131_072_000,
        ),
        strip=tuple(bins),
        worst_rows=_language_worst() if affected else (),
    )


def _language_worst() -> tuple[WorstRow, ...]:
    views = (
        RowView("naive", NAN, (NAN, NAN, 0.0), (NAN, NAN, NAN)),
        RowView("log-of-softmax", 4.125, (0.0161634, 0.91, 3.2e-31), (-2.4e-4, 2.2e-4, 7.8e-35)),
        RowView("logsumexp", 4.125, (0.0161634, 0.91, 3.2e-31), (-2.4e-4, 2.2e-4, 7.8e-35)),
        RowView("fused", 4.125, (0.0161634, 0.91, 3.2e-31), (-2.4e-4, 2.2e-4, 7.8e-35)),
        RowView("truth", 4.12500021, (0.01616339, 0.91000003, 3.2e-31), (-2.4e-4, 2.2e-4, 7.8e-35)),
    )
    rows = ((2, 97.25), (9, 93.5))
    return tuple(
        WorstRow(row, "NH101", largest, 417, (417, 11, 30999), (93.125, largest, 27.0), views)
        for row, largest in rows
    )


WEIGHT = TensorReport(
    file="model.safetensors",
    tensor="decoder.layers.0.attn.q_proj.weight",
    role="values",
    operation="values",
    stored_dtype="float32",
    dtype="float16",
    shape=(256, 256),
    rows=256,
    classes=256,
    targets=None,
    health=Health(2, 1, 0, 128, 0, -70000.0, 3.25),
    implementations={},
    truth=None,
    findings=(
        Finding("NH501", "non-finite-values", Severity.ERROR, 3, (7, 300, 301), "value (0, 7) is NaN"),
        Finding(
            "NH502",
            "cast-loss",
            Severity.WARNING,
            40,
            (0, 1, 2),
            "value (0, 0): -70000 is beyond 65504, the largest float16",
            known=True,
        ),
    ),
    affected_rows=43,
    histogram=Histogram(
        -30,
        (0, 5, 900) + (1000,) * 28 + (4,) + (0,) * 15,
        (900,) * 31 + (0,) * 15 + (1,),
        128,
        3,
        65536,
        65536,
    ),
)
ATTENTION = TensorReport(
    file="attn.pt",
    tensor=HOSTILE,
    role="logits",
    operation="cross-entropy",
    fused_call="F.cross_entropy",
    stored_dtype="bfloat16",
    dtype="float8_e4m3fn",
    shape=(2, 4, 8, 16),
    rows=64,
    classes=16,
    targets=None,
    health=Health(0, 0, 512, None, None, -3.5, 5.75),
    implementations={},
    truth=None,
    findings=(
        Finding("NH003", "fully-masked-row", Severity.ERROR, 1, (63,), "row (1, 3, 7): every logit is -inf"),
        Finding(
            "NH201",
            "probability-underflow",
            Severity.NOTE,
            4,
            (0, 9, 10, 62),
            "row (0, 0, 0): loss is inf if the label is one of 7 of 16 classes",
        ),
    ),
    affected_rows=5,
    notes=("float8 has no arithmetic: judged upcast to float32",),
)
HEALTHY = TensorReport(
    file="attn.pt",
    tensor="head.logits",
    role="logits",
    operation="cross-entropy",
    fused_call="F.cross_entropy",
    stored_dtype="bfloat16",
    dtype="bfloat16",
    shape=(64, 16),
    rows=64,
    classes=16,
    targets=None,
    health=Health(None, None, None, None, None, -3.5, 5.75),
    implementations={},
    truth=None,
    findings=(),
    histogram=Histogram(
        -6, (3, 9, 40, 90, 200, 140, 30, 1, 0), (3, 9, 40, 90, 200, 140, 29, 0, 0), 0, 0, 1024, 1024
    ),
    strip=(RowBin(0, 63, 5.75, ()),),
)
STEPS = (
    _dump(2, 31.5, (), 0),
    _dump(10, 80.5, (HEADROOM,), 0),
    _dump(20, 97.25, (NAN_LOGITS, MANY_OVERFLOW, HEADROOM), 1200),
)
ERRORS = (
    ReadError("dumps/step-30.npz", "truncated: 1,024 of 4,096 bytes are there", "Write the file again."),
    ReadError(
        "evil\x1b[2J\n::warning::.pt", "needs more than weights: posix.system", "Save a state_dict instead."
    ),
)
OPTIONS = {"dtype": [], "reduction": "mean", "fail_on": "warning", "select": [], "ignore": [], "max_rows": 10}


def judged(tensor: TensorReport) -> TensorReport:
    """As a scan leaves it: with operation, options and place."""
    operation = "values" if tensor.role == "values" else tensor.operation
    where = coordinates(tensor.file, tensor.tensor)
    return replace(tensor, operation=operation, options=OPTIONS, coordinates=where)


ARTICLES, WEIGHT, ATTENTION, HEALTHY = map(judged, (ARTICLES, WEIGHT, ATTENTION, HEALTHY))
STEPS = tuple(map(judged, STEPS))
REPORT = sum(
    [Report(OPTIONS, (tensor,), (), 1) for tensor in (ARTICLES, *STEPS, WEIGHT, ATTENTION, HEALTHY)],
    start=Report(OPTIONS, (), ERRORS, 2),
)
