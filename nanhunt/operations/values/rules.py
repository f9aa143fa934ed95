"""The rules of weights, optimizer state and whatever else holds numbers. No import of torch or numpy."""

from __future__ import annotations

from typing import Any

from nanhunt.dtypes.formats import FORMATS
from nanhunt.operations.fix import Fix
from nanhunt.operations.rule import Rule
from nanhunt.results.finding import Severity

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
    operation="values", minor=Severity.NOTE, input_at_fault=True,
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
    operation="values", input_at_fault=True, fixes=CAST_LOSS.fixes,
)  # fmt: skip
NEGATIVE_MOMENT = Rule[Any, Any, Any](
    "NH505", "negative-second-moment", Severity.ERROR,
    "A second moment of an optimizer (exp_avg_sq) is negative.",
    "It is an average of squares; Adam takes its square root, so the weight is NaN after the next step.",
    "Go back to an earlier checkpoint, or set the moments of this parameter to 0; find who wrote it (a cast, an "
    "average of checkpoints).",
    operation="values",
)  # fmt: skip
FLUSHED_MOMENT = Rule[Any, Any, Any](
    "NH506", "flushed-second-moment", Severity.WARNING,
    "A second moment is 0 where the first is not, and the next update is out of all proportion.",
    "Adam divides by sqrt(exp_avg_sq) + eps: with a second moment saved as float16, which ends at 6e-8, that is eps.",
    "Save optimizer state in float32; of this file drop the state, and warm the learning rate up again.",
    operation="values",
)  # fmt: skip
NO_EPS = Rule[Any, Any, Any](
    "NH507", "eps-is-zero", Severity.WARNING,
    "Second moments are 0 in a dtype in which Adam's eps is 0 as well.",
    "1e-8 is below half of float16's smallest number: the step divides by 0, and 0 / 0 is NaN.",
    "Keep the optimizer's state in float32, or use an eps of 1e-4 with float16.",
    operation="values",
)  # fmt: skip
FORGOTTEN_STEP = Rule[Any, Any, Any](
    "NH508", "step-zero-beside-moments", Severity.NOTE,
    "The optimizer's step is 0 though its moments have been updated.",
    "Bias correction takes the next step for the first: the averages, which are complete, are divided by 1 - beta.",
    "Restore the step together with the moments, or drop both.",
    operation="values",
)  # fmt: skip
NEGATIVE_VARIANCE = Rule[Any, Any, Any](
    "NH509", "negative-variance", Severity.ERROR,
    "A running variance is negative.",
    "Batch normalisation takes sqrt(var + eps): NaN in evaluation, while training goes on.",
    "Estimate the statistics again (a pass in train mode), and find who wrote them.",
    operation="values",
)  # fmt: skip
BAD_SCALE = Rule[Any, Any, Any](
    "NH510", "quantisation-scale-not-positive", Severity.NOTE,
    "A quantisation scale is 0 or negative.",
    "What it scales becomes 0 or changes its sign; where it divides, the result is infinite. A block of zeros has a "
    "scale of 0 in some formats.",
    "Quantise these blocks again, and compare them with the original weights.",
    operation="values",
)  # fmt: skip
DEAD_ADAPTER = Rule[Any, Any, Any](
    "NH511", "adapter-is-zero", Severity.NOTE,
    "lora_B is 0 everywhere: the adapter changes nothing.",
    "So it starts, and a fresh one is no fault; after training it says that no gradient reached it. Checkpoints of "
    "several steps that all have it so are told as \"never trained\", a note all the same: of several adapters in a "
    "file one may be trained and the others kept.",
    "Look whether its parameters were in the optimizer, and whether lora_A is 0 too.",
    operation="values",
)  # fmt: skip
ZERO_VARIANCE = Rule[Any, Any, Any](
    "NH512", "zero-variance", Severity.NOTE,
    "A running variance is 0.",
    "The channel never changed in training; one that does later is multiplied by 1 / sqrt(eps), 316 for 1e-5.",
    "Look at what feeds the channel: a dead one, or statistics that were never updated.",
    operation="values",
)  # fmt: skip
NORM_WEIGHT = Rule[Any, Any, Any](
    "NH513", "norm-weight-not-positive", Severity.NOTE,
    "A few scales of a normalisation are 0 or negative.",
    "A scale of 0 switches its channel off, and a negative one turns it round; pruning does so on purpose, and a norm "
    "that multiplies by 1 + weight (Gemma) has such.",
    "Compare with an earlier checkpoint whether they went through 0 in training.",
    operation="values",
)  # fmt: skip
RULES = (
    NON_FINITE, CAST_LOSS, BOOKKEEPING, VALUE_OVERFLOW, NEGATIVE_MOMENT, FLUSHED_MOMENT, NO_EPS, FORGOTTEN_STEP,
    NEGATIVE_VARIANCE, BAD_SCALE, DEAD_ADAPTER, ZERO_VARIANCE, NORM_WEIGHT,
)  # fmt: skip
