"""Every repair there is, best first: the stable formula, the input replaced before the operation, float32, a floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .exponential import bounded_exp, masked_ratio, sigmoid_by_hand, softmax_by_hand, softplus_by_hand
from .logarithm import log_of_complement, log_of_sigmoid, log_of_softmax
from .rewrite import Proposal
from .selected import input_replaced
from .spot import Spot

Repair = Callable[[Spot], Iterator[Proposal]]

REPAIRS: tuple[Repair, ...] = (
    softmax_by_hand,
    softplus_by_hand,
    sigmoid_by_hand,
    log_of_softmax,
    log_of_sigmoid,
    log_of_complement,
    masked_ratio,
    input_replaced,
    bounded_exp,
)


def proposals_for(spot: Spot) -> Iterator[Proposal]:
    """Those that fit the call, each title once."""
    seen = set()
    for repair in REPAIRS:
        for proposal in repair(spot):
            if proposal.title not in seen:
                seen.add(proposal.title)
                yield proposal
