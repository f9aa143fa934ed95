"""Calls that a function mode does not see: modules, custom Functions and compiled regions. Wrapped while watching."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from .recorder import Opaque, Recorders
from .site import OWN, places
from .unseen import hide

Called = Callable[[torch.nn.Module], None]
Returned = Callable[[Any], None]


@contextlib.contextmanager
def calls_patched(recorders: Recorders, called: Called, returned: Returned) -> Iterator[None]:
    """Tell the recorder which module runs; note custom Functions and compiled regions as one call each.

    ``called`` is called with each outermost module before it runs, ``returned`` with its output.
    """
    module_call = torch.nn.Module.__call__
    apply = torch.autograd.Function.__dict__["apply"]
    compiler = torch.compile
    torch.nn.Module.__call__ = _module_call(recorders, module_call, called, returned)  # type: ignore[method-assign]
    torch.autograd.Function.apply = classmethod(_apply(recorders, apply.__func__))  # type: ignore[assignment,method-assign]
    torch.compile = _compile(recorders, compiler)
    undo = _compiled_before(recorders)
    script_call = torch.jit.ScriptFunction.__call__
    torch.jit.ScriptFunction.__call__ = _script_call(recorders, script_call)  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.nn.Module.__call__ = module_call  # type: ignore[method-assign]
        torch.autograd.Function.apply = apply  # type: ignore[method-assign]
        torch.compile = compiler
        undo()
        torch.jit.ScriptFunction.__call__ = script_call  # type: ignore[method-assign]


def _module_call(
    recorders: Recorders, original: Callable[..., Any], called: Called, returned: Returned
) -> Callable[..., Any]:
    is_compiling = torch.compiler.is_compiling
    scripted = torch.jit.ScriptModule
    unseen = _Unseen(recorders)

    @functools.wraps(original)
    def call(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        recorder = recorders.recorder
        if is_compiling() or recorder.paused:
            return original(self, *args, **kwargs)
        outer, line, site = recorder.module, recorder.line, recorder.site
        here = sys._getframe(1)
        code = here.f_code
        if places[code.co_filename] is OWN:
            instruction = here.f_lasti
            recorder.line, recorder.site = (code, instruction), (code, instruction, None)
        else:
            recorder.site = recorder.site_of(here)
        if outer is None:
            if recorder.last_root() is not self:
                recorder.roots[id(self)] = self
                recorder.last_root = weakref.ref(self)
            recorder.tape.read_state()
            called(self)
        is_scripted = isinstance(self, scripted)
        if is_scripted:
            recorder.unlooked.script_ran(self)
        recorder.module = (self, outer)
        try:
            if not self.training and _is_one_kernel(self):
                with unseen:
                    out = original(self, *args, **kwargs)
            elif self._compiled_call_impl is None and not is_scripted:
                out = original(self, *args, **kwargs)
            else:
                out = recorder.opaque(_region(original, self, is_scripted), args, kwargs)
        except BaseException as error:
            hide(error)
            raise
        finally:
            recorder.module, recorder.line, recorder.site = outer, line, site
        if outer is None:
            returned(out)
        return out

    return call


_AT_INFERENCE = (torch.nn.MultiheadAttention, torch.nn.TransformerEncoderLayer, torch.nn.TransformerEncoder)


def _is_one_kernel(module: torch.nn.Module) -> bool:
    """Whether it may call a kernel of its own, as it does without gradients unless a mode is on the stack.

    The long way that it takes then rounds otherwise.
    """
    if not isinstance(module, _AT_INFERENCE):
        return False
    return not (torch.is_grad_enabled() and any(each.requires_grad for each in module.parameters()))


class _Unseen:
    """What torch's modules ask before they call that kernel is answered as it is without the recorder.

    Put in place by the first of several at once, which may run in several threads, and taken away by the last.
    """

    def __init__(self, recorders: Recorders) -> None:
        self._recorders = recorders
        self._lock = threading.Lock()
        self._inside = 0
        self._original = torch.overrides.has_torch_function

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            torch.overrides.has_torch_function = self._has_torch_function

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                torch.overrides.has_torch_function = self._original

    def _has_torch_function(self, args: Iterable[Any]) -> bool:
        recorder = self._recorders.recorder
        recorder.step_aside()
        try:
            return bool(self._original(args))
        finally:
            recorder.step_back()


def _region(original: Callable[..., Any], module: torch.nn.Module, scripted: bool) -> Opaque:
    """A module as one call."""
    name = f"scripted {module.original_name}" if scripted else f"compiled {type(module).__name__}"
    return Opaque(
        functools.partial(original, module), name, compiled=not scripted, native=scripted, module=module
    )


def _script_call(recorders: Recorders, original: Callable[..., Any]) -> Callable[..., Any]:
    """Of a function of torch.jit, which runs without Python."""

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = recorders.recorder
        if recorder.paused:
            return original(self, *args, **kwargs)
        recorder.unlooked.script_ran(self, function=True)
        try:
            name = f"scripted {self.name}"
            return recorder.opaque(Opaque(functools.partial(original, self), name, native=True), args, kwargs)
        except BaseException as error:
            hide(error)
            raise

    return call


def _apply(recorders: Recorders, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def apply(cls: type[torch.autograd.Function], *args: Any, **kwargs: Any) -> Any:
        try:
            if torch.compiler.is_compiling() or recorders.recorder.paused:
                return original(cls, *args, **kwargs)
            return recorders.recorder.opaque(
                Opaque(functools.partial(original, cls), cls.__name__), args, kwargs
            )
        except BaseException as error:
            hide(error)
            raise

    return apply


def _compile(recorders: Recorders, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def compile(model: Any = None, **options: Any) -> Any:
        if model is None:
            return lambda function: compile(function, **options)
        compiled = original(model, **options)
        module = compiled if isinstance(compiled, torch.nn.Module) else None
        region = Opaque(compiled, f"compiled {_name(model)}", compiled=True, module=module)
        if isinstance(compiled, torch.nn.Module):
            return _open_module(recorders, compiled, region)

        @functools.wraps(compiled)
        def call(*args: Any, **kwargs: Any) -> Any:
            return recorders.recorder.opaque(region, args, kwargs)

        return call

    return compile


def _open_module(recorders: Recorders, compiled: torch.nn.Module, region: Opaque) -> torch.nn.Module:
    """An ``OptimizedModule`` has a ``__call__`` of its own: give this one a class that notes it."""
    base = type(compiled)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return recorders.recorder.opaque(region, args, kwargs)

    region.func = functools.partial(base.__call__, compiled)
    compiled.__class__ = type(base.__name__, (base,), {"__call__": call, "__module__": base.__module__})
    return compiled


def _compiled_before(recorders: Recorders) -> Callable[[], None]:
    """Modules that were compiled before the watching began are one call each, too; returns what undoes it."""
    dynamo: Any = sys.modules.get("torch._dynamo.eval_frame")
    if dynamo is None:
        return lambda: None
    kind = dynamo.OptimizedModule
    original = kind.__call__

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        region = Opaque(functools.partial(original, self), "compiled module", compiled=True, module=self)
        return recorders.recorder.opaque(region, args, kwargs)

    kind.__call__ = call

    def undo() -> None:
        kind.__call__ = original

    return undo


def _name(target: Any) -> str:
    return str(getattr(target, "__name__", type(target).__name__))
