"""The rules of weights, optimizer state and whatever else holds numbers. No import of torch or numpy."""

from __future__ import annotations

from typing import Any

from nanhunt.operations.rule import Rule
from nanhunt.results.report import Severity

NON_FINITE = Rule[Any, Any, Any](
    "NH501", "non-finite-values", Severity.ERROR,
    "A tensor that is not logits holds NaN or inf.",
    "A weight or optimizer moment that is not finite makes every later step NaN.",
    "Go back to an earlier checkpoint; find the step that wrote it (nanhunt run).",
    operation="values",
)  # fmt: skip
CAST_LOSS = Rule[Any, Any, Any](
    "NH502", "cast-loss", Severity.WARNING,
    "Values of such a tensor overflow or flush to zero in the chosen dtype.",
    "They are beyond the format's largest number, or below half its smallest.",
    "Keep this tensor in float32, or in bfloat16, which has float32's range.",
    operation="values",
)  # fmt: skip
BOOKKEEPING = Rule[Any, Any, Any](
    "NH503", "bookkeeping-nan", Severity.NOTE,
    "A number kept beside the weights (a metric, a best score) is NaN.",
    "Training does not go on with it, so no weight is harmed; but a loss was NaN when it was written.",
    "Find the step that made it (nanhunt run); the checkpoint itself can be used.",
    operation="values",
)  # fmt: skip
RULES = (NON_FINITE, CAST_LOSS, BOOKKEEPING)
