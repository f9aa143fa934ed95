"""The rules of two dumps compared. No import of torch or numpy."""

from __future__ import annotations

from typing import Any

from nanhunt.operations.rule import Rule
from nanhunt.results.finding import Severity

NONFINITE_GAINED = Rule[Any, Any, Any](
    "NHD101", "nonfinite-gained", Severity.ERROR,
    "A value is finite in A, and NaN or infinite in B.",
    "Comparisons that sum up (a mean, a cosine) turn NaN and say nothing of where; those that mask it say nothing "
    "at all.",
    "Look at the first tensor in order: the ones after it only pass it on. `nanhunt check B` says what it breaks.",
    operation="difference",
)  # fmt: skip
NONFINITE_LOST = Rule[Any, Any, Any](
    "NHD102", "nonfinite-lost", Severity.WARNING,
    "A value is NaN or infinite in A, and finite in B.",
    "A mask of -inf that became a large finite number, or a NaN that something replaced (nan_to_num).",
    "Where A is the faulty run, this is the repair. Where -inf was a mask, look at who fills it in B.",
    operation="difference",
)  # fmt: skip
NONFINITE_CHANGED = Rule[Any, Any, Any](
    "NHD103", "nonfinite-changed", Severity.ERROR,
    "A value is infinite in both with another sign, or infinite in one and NaN in the other.",
    "inf - inf is NaN, so that a comparison by subtraction either fails at every equal infinity or, once it masks "
    "those, takes +inf and -inf for equal.",
    "Look at the operation that writes this tensor: a sign was lost before the overflow, or inf met inf.",
    operation="difference",
)  # fmt: skip
SHAPE = Rule[Any, Any, Any](
    "NHD201", "shape-differs", Severity.ERROR,
    "Two tensors of one name have different shapes.",
    "Their values cannot be paired: a transposed weight, a padded vocabulary, another batch.",
    "Transpose, cut or gather one side first, or compare runs with the same batch.",
    operation="difference",
)  # fmt: skip
MISSING = Rule[Any, Any, Any](
    "NHD202", "missing-tensor", Severity.ERROR,
    "A tensor of A has no partner in B.",
    "Names are paired after --rename, without wrappers (module., _orig_mod.) and common prefixes.",
    "Say how B calls it: --rename 'OLD=NEW', a regular expression for the names of A. Tied weights are saved once "
    "by some writers: then it is the other name of a tensor that B has.",
    operation="difference",
)  # fmt: skip
EXTRA = Rule[Any, Any, Any](
    "NHD203", "extra-tensor", Severity.WARNING,
    "A tensor of B has no partner in A.",
    "Names are paired after --rename, without wrappers (module., _orig_mod.) and common prefixes.",
    "Say how A calls it: --rename 'OLD=NEW', a regular expression for the names of A.",
    operation="difference",
)  # fmt: skip
DTYPE = Rule[Any, Any, Any](
    "NHD204", "dtype-differs", Severity.NOTE,
    "Two tensors of one name are stored in different dtypes.",
    "Their values are compared as numbers, in steps of the format with fewer digits.",
    "Nothing, where one side was cast on purpose.",
    operation="difference",
)  # fmt: skip
VALUES = Rule[Any, Any, Any](
    "NHD301", "values-differ", Severity.ERROR,
    "Values differ by more than the tolerance.",
    "Rounding in another order of additions moves a value by a few steps of its format (ULP) at the magnitude of "
    "the terms; this is more.",
    "Look at the first tensor in order, and at what goes into it; --rtol, --atol and --max-ulp set the tolerance.",
    operation="difference",
)  # fmt: skip
ISOLATED = Rule[Any, Any, Any](
    "NHD302", "isolated-difference", Severity.ERROR,
    "A few values differ by more than the tolerance, and nearly all others do not.",
    "Rounding does not pick single values: a flipped bit, a race, one wrong index, a row that another rank wrote. "
    "Means, norms and cosines over the tensor do not show it.",
    "Look at those positions: the same bit in all, one row or one tile says who wrote them.",
    operation="difference",
)  # fmt: skip
ROUNDING = Rule[Any, Any, Any](
    "NHD303", "within-rounding", Severity.NOTE,
    "Values differ, none by more than the tolerance.",
    "Another order of additions, another kernel or a cast explains it.",
    "Nothing. --max-ulp 0 makes every difference count.",
    operation="difference",
)  # fmt: skip
TOP1 = Rule[Any, Any, Any](
    "NHD401", "top1-changed", Severity.WARNING,
    "The largest logit of a row is of another class.",
    "Greedy decoding and accuracy change with it. Where the logits are within rounding, the two classes were as good "
    "as tied, and it is a note.",
    "The margin says how clear the choice was in A: what is above a few ULP of the logits is no tie.",
    operation="difference", minor=Severity.NOTE,
)  # fmt: skip
RULES = (
    NONFINITE_GAINED, NONFINITE_LOST, NONFINITE_CHANGED, SHAPE, MISSING, EXTRA, DTYPE, VALUES, ISOLATED, ROUNDING, TOP1,
)  # fmt: skip
