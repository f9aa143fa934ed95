"""Less work in every call: torch's Python functions ask the recorder directly, and autocast tells when it changes."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

from .recorder import Recorders
from .tape import autocast_state

_SETTERS = (
    *("set_autocast_enabled", "set_autocast_dtype", "set_autocast_cpu_enabled", "set_autocast_cpu_dtype"),
    "set_autocast_gpu_dtype",
)
"""What ``torch.autocast`` and its older spellings call, by this name, as they are entered and left."""
_pop: Callable[[], Any] = torch._C._pop_torch_function_stack
_push: Callable[[Any], None] = torch._C._push_on_torch_function_stack


@contextlib.contextmanager
def short_cuts(recorders: Recorders) -> Iterator[None]:
    """Take them; torch is as before at the end."""
    undo: list[Callable[[], None]] = []
    names: Any = torch
    for name in filter(functools.partial(hasattr, torch), _SETTERS):
        undo.append(functools.partial(setattr, names, name, getattr(names, name)))
        setattr(names, name, _then_told(recorders, getattr(names, name)))
    original: Any = torch.overrides.handle_torch_function
    for module in [module for module in list(sys.modules.values()) if _asks(module, original)]:
        undo.append(functools.partial(setattr, module, "handle_torch_function", original))
        vars(module)["handle_torch_function"] = _handler(recorders, original)
    try:
        yield
    finally:
        while undo:
            undo.pop()()


def _then_told(recorders: Recorders, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def setter(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        recorders.recorder.tape.autocast = autocast_state()
        return result

    return setter


def _asks(module: Any, handler: Any) -> bool:
    """Whether functions of a module reach the handler by a global of theirs."""
    mine = getattr(module, "__dict__", {}).get("handle_torch_function")
    return mine is handler and module is not torch.overrides


def _handler(recorders: Recorders, original: Callable[..., Any]) -> Callable[..., Any]:
    """``torch.overrides.handle_torch_function`` where the recorder is the mode that it would ask.

    The original first works out which arguments override the function, then enters a context manager: that costs
    three times what the recorder does.
    """

    @functools.wraps(original)
    def handle_torch_function(public_api: Any, relevant_args: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = recorders.recorder
        if not recorder.is_on_top():
            return original(public_api, relevant_args, *args, **kwargs)
        _pop()
        try:
            return recorder.__torch_function__(public_api, (), args, kwargs)
        finally:
            _push(recorder)

    return handle_torch_function
