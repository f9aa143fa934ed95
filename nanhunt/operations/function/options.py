"""The options that name the user's code: every command's flags are made from them before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from nanhunt.options import option


@dataclass(frozen=True, kw_only=True)
class FunctionOptions:
    """Your own function."""

    function: str | None = option(
        None,
        metavar="FILE.py:NAME",
        help="Run this function of yours on the tensors that its parameters name, and judge it. Runs your code.",
        is_setting=False,
    )
    stable: str | None = option(
        None,
        metavar="FILE.py:NAME",
        help="Another way of writing --function, compared with it. Runs your code.",
        is_setting=False,
    )
