"""What the tensors of a softmax cross entropy are, and what dumps call them. Data only: nothing heavy is imported."""

from __future__ import annotations

from nanhunt.load.roles import Role
from nanhunt.load.tensor import FLOATING, INTEGER

# Patterns are compiled by re when first used: most files hold one tensor without a name.
LOGITS = Role(
    "logits", r".*logits?(_per_\w+)?", FLOATING, dimensions=1,
    what="(..., classes) float: scores before the softmax; --class-axis where classes are not last",
)  # fmt: skip
SCORES = Role("logits", r"(?!(token([_-]level)?|rewards?|rm)[_-])(.*[_-])?scores?", FLOATING, dimensions=2)
"""Of attention or of candidates; in one dimension they are rewards or ranks more often than a softmax."""
TARGETS = Role(
    "targets",
    r"(.*[_-])?(targets?|labels?)([_-](ids?|idx|index|probs?|probabilities))?|y|y_true|gold|ground_truth"
    r"|(.*[_-])?masks|(start|end)_positions?",
    INTEGER + FLOATING,
    usual=INTEGER,
    required=False,
    what="the logits' shape without classes: integer labels; or probabilities of the logits' shape",
)
CLASS_WEIGHTS = Role(
    "class weights", r"((class|ce|loss)[_-]?)?weights?", FLOATING, required=False, what="(classes,) float"
)
INPUTS = Role(
    "input ids", r"(decoder_)?input(s|_ids?)?|(input_)?tokens?|token_ids|idx|x", INTEGER, required=False
)
"""What a language model read: tells whether its labels are shifted."""
CLASS_MASK = Role("targets", r"(.*[_-])?mask", INTEGER, dimensions=3, required=False)
"""Of a segmentation, one class a pixel; masks of attention are called so too, and have other shapes."""

OTHERS_LABELS = r"(.*[_-])?(teacher|ref|reference|old)[_-]logits?"
"""Logits that a loss compares with, and not with the labels beside them."""
NOT_LOGITS = (
    r"(.*[_-])?(weights?|bias|kernel|gamma|beta|embeddings?|exp_avg|exp_avg_sq|momentum_buffer"
    r"|square_avg|grad_avg|running_mean|running_var|lora_[ab]|weight_[gv]|inv_freq|master_param"
    r"|scales?(_inv)?|absmax|(query|key)(_states?|_layer)?|value(_states?|_layer)"
    r"|hidden_states?|features?|pixel_values|images?|inputs_embeds|grads?|gradients?|loss(es)?"
    r"|scores?|rewards?|advantages?|returns?|hidden|probs?|probabilities|attentions?)"
)
"""Names of what a model and its optimizer keep (in PyTorch's spelling and in Keras') and of what they pass on."""
