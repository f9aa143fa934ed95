"""The rules of weights, optimizer state and whatever else holds numbers. No import of torch or numpy."""

from __future__ import annotations

from typing import Any

from nanhunt.dtypes.formats import FORMATS
from nanhunt.operations.fix import Fix
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
    "So many or so large values of such a tensor flush to zero in the chosen dtype that they carry weight.",
    "They are below half the format's smallest number: more than 1 % of what is not 0, or more than 0.1 % of the "
    "largest value when added up in squares. Fewer and smaller ones are a note.",
    "Keep this tensor in float32, or in bfloat16, which has float32's range and fewer digits.",
    operation="values", minor=Severity.NOTE,
    fixes=(
        Fix(
            "use bfloat16 for this tensor", "output = tensor.to(torch.bfloat16)",
            when=lambda dtype: FORMATS[dtype].is_narrow,
            changes="every other value is rounded to 8 bits",
        ),
    ),
)  # fmt: skip
BOOKKEEPING = Rule[Any, Any, Any](
    "NH503", "bookkeeping-nan", Severity.NOTE,
    "A number kept beside the weights (a metric, a best score) is NaN.",
    "Training does not go on with it, so no weight is harmed; but a loss was NaN when it was written.",
    "Find the step that made it (nanhunt run); the checkpoint itself can be used.",
    operation="values",
)  # fmt: skip
VALUE_OVERFLOW = Rule[Any, Any, Any](
    "NH504", "value-overflow", Severity.ERROR,
    "A finite value of such a tensor is infinite (float8_e4m3fn: saturated) in the chosen dtype.",
    "It is beyond the format's largest number: one infinite weight makes every output NaN.",
    "Keep this tensor in float32, or in bfloat16, which has float32's range and fewer digits.",
    operation="values", fixes=CAST_LOSS.fixes,
)  # fmt: skip
RULES = (NON_FINITE, CAST_LOSS, BOOKKEEPING, VALUE_OVERFLOW)
