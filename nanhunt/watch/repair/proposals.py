"""Every repair there is, best first: the stable formula, the input replaced before the operation, float32, a floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .empty import all_labels_ignored, loss_of_nothing, mean_of_nothing
from .exponent import bounded_exponent
from .exponential import bounded_exp, masked_ratio, sigmoid_by_hand, softmax_by_hand, softplus_by_hand
from .floor import argument_floor, count_floor, divisor_floor, domain_clamp, in_float32, without_cast
from .infinite import equal_infinities, masked_rows, zero_times_infinity
from .logarithm import log_of_complement, log_of_sigmoid, log_of_softmax
from .norm import direction, norm_by_hand, normalised, spread_of_one
from .product import scaled_first, wide_inside_autocast, wide_until_softmax
from .rewrite import Proposal
from .selected import input_replaced
from .spot import Spot

Repair = Callable[[Spot], Iterator[Proposal]]

REPAIRS: tuple[Repair, ...] = (
    # The same function in a stable form.
    softmax_by_hand, softplus_by_hand, sigmoid_by_hand, log_of_softmax, log_of_sigmoid, log_of_complement,
    norm_by_hand, normalised, direction, spread_of_one, mean_of_nothing, loss_of_nothing, all_labels_ignored,
    count_floor, zero_times_infinity, equal_infinities, scaled_first,
    # The input replaced where the result does not count.
    masked_ratio, input_replaced,
    # More room.
    in_float32, wide_until_softmax, wide_inside_autocast, without_cast,
    # Another objective, for some values.
    masked_rows, domain_clamp, argument_floor, divisor_floor, bounded_exponent, bounded_exp,
)  # fmt: skip


def proposals_for(spot: Spot) -> Iterator[Proposal]:
    """Those that fit the call, each title once."""
    seen = set()
    for repair in REPAIRS:
        for proposal in repair(spot):
            if proposal.title not in seen:
                seen.add(proposal.title)
                yield proposal
