"""The flight recorder: notes each call of a torch function. It looks at no numbers, so it never waits for a GPU."""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from .names import SOFTMAX_LIKE, operation
from .numbers import checkable, finite, tensors_in
from .site import FOREIGN, OWN, Line, caller, own_line, places
from .tape import DRAWS, FRESH, Module, RandomState, Site, Tape, autocast_state
from .unlooked import Unlooked
from .unseen import hide

_MODULE_CALLS = str(Path(__file__).with_name("calls.py"))
_PLAIN = frozenset({bool, int, float, complex, str, torch.Size, torch.dtype, torch.device, torch.layout})
_accessors: Any = torch.Tensor  # what torch calls a property's function, typed as the property
_WRITERS = frozenset({torch.Tensor.__setitem__, _accessors.data.__set__})
"""Calls that return None and still change a tensor."""
_VALUES = frozenset({bool, float})
_READERS = frozenset({torch.Tensor.item, torch.Tensor.__float__, torch.Tensor.__bool__})
_ARRAYS = frozenset({torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__})
"""Calls that hand numbers to the script."""
_RANDOM = frozenset(
    {
        *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal"),
        *(
            "bernoulli",
            "multinomial",
            "poisson",
            "binomial",
            "dropout",
            "dropout1d",
            "dropout2d",
            "dropout3d",
        ),
        *("alpha_dropout", "feature_alpha_dropout", "feature_dropout", "native_dropout", "rrelu", "rrelu_"),
        *("gumbel_softmax", "fractional_max_pool2d", "fractional_max_pool3d", "multi_head_attention_forward"),
        *("scaled_dot_product_attention", "lstm", "gru", "rnn_tanh", "rnn_relu", "dropout_"),
        *(
            "normal_",
            "uniform_",
            "random_",
            "exponential_",
            "bernoulli_",
            "log_normal_",
            "cauchy_",
            "geometric_",
        ),
    }
)
"""Names of calls that take random numbers, or may."""
_GIVEN = frozenset(
    {
        *(torch.tensor, torch.as_tensor, torch.from_numpy, torch.frombuffer, torch.asarray),
        *(torch.empty, torch.empty_like, torch.empty_strided, torch.Tensor.new_empty),
        _accessors.grad.__get__,
    }
)
"""Their result is an input of the step: what it came from may have changed when the step is repeated."""
_FRESH = frozenset({
    "add", "sub", "mul", "div", "true_divide", "rsub", "pow", "matmul", "mm", "bmm", "mv", "dot", "addmm",
    "linear", "neg", "abs", "exp", "expm1", "log", "log1p", "log2", "sqrt", "rsqrt", "sin", "cos", "tanh",
    "sigmoid", "relu", "gelu", "silu", "elu", "leaky_relu", "softplus", "softmax",
    "log_softmax", "logsumexp", "sum", "mean", "prod", "var", "std", "cumsum", "amax", "amin", "argmax",
    "argmin", "eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite", "all", "any",
    "_is_all_true", "remainder", "fmod", "floor", "round", "sign", "square", "logical_and", "logical_or",
    "logical_not", "maximum", "minimum", "where", "clamp", "clip", "cat", "stack", "gather", "scatter",
    "scatter_add", "scatter_reduce", "index_add", "index_select", "masked_fill", "layer_norm",
    "cross_entropy", "nll_loss", "mse_loss", "binary_cross_entropy_with_logits", "binary_cross_entropy",
    "zeros", "ones", "full", "rand", "randn", "arange", "zeros_like", "ones_like", "full_like",
    "rand_like", "randn_like", "__radd__", "__rmul__", "__rsub__", "__rtruediv__", "__rdiv__",
    "__rpow__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__and__", "__or__",
    "__invert__",
})  # fmt: skip
"""Names of calls of torch whose result, if it is none of their arguments, is a tensor in memory of its own."""
_WRITES, _INPUT, _ARRAY, _VIEW, _LOGITS, _IN_PLACE = (1 << bit for bit in range(2, 8))
_SPECIAL = _INPUT | _ARRAY | _VIEW | _LOGITS
_UNUSUAL = FRESH | DRAWS | _IN_PLACE
"""Of these flags a call has ``FRESH`` alone that ``Tape.note_fresh`` may take."""
_Tensor = torch.Tensor
_grad_enabled = torch.is_grad_enabled
_depth: Callable[[], int] = torch._C._len_torch_function_stack
_top: Callable[[int], Any] = torch._C._get_function_stack_at
_pop: Callable[[], Any] = torch._C._pop_torch_function_stack
_push: Callable[[Any], None] = torch._C._push_on_torch_function_stack
_transform: Callable[[], Any] = torch._C._functorch.peek_interpreter_stack
_FORWARD_MODE = torch._C._functorch.TransformType.Jvp


class Opaque:
    """A call whose inside the recorder does not see: a custom Function, a compiled region, a gradient."""

    def __init__(
        self,
        func: Callable[..., Any],
        name: str,
        *,
        compiled: bool = False,
        native: bool = False,
        module: torch.nn.Module | None = None,
    ) -> None:
        self.func = func
        self.__name__ = name
        self.compiled = compiled
        self.native = native
        """Whether no Python runs inside."""
        self.module = module
        """Whose parameters it reads, though they are none of its arguments."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it."""
        return self.func(*args, **kwargs)


class Refused(NamedTuple):
    """The last call, where it has raised over arguments that were not finite."""

    error: int
    """id of the exception."""
    operation: str
    bad: list[torch.Tensor]


class Recorder(TorchFunctionMode):
    """Writes the tape of the thread that entered it."""

    def __init__(
        self, value_read: Callable[[torch.Tensor, bool | float], None], unlooked: Unlooked | None = None
    ) -> None:
        super().__init__()
        self.value_read = value_read
        """Called where the script itself reads one number."""
        self.unlooked = unlooked if unlooked is not None else Unlooked()
        self.tape = Tape()
        self.keeps_logits = False
        self.logits: torch.Tensor | None = None
        """What the last softmax or cross entropy was given; kept alive only where ``keeps_logits`` asks for it."""
        self.paused = False
        self.aside = False
        self.module: Module | None = None
        self.line: Line | None = None
        """The user's own line that called the running module, or the one it runs in."""
        self.site: Site | None = None
        """Where the running module was called."""
        self.roots: weakref.WeakValueDictionary[int, torch.nn.Module] = weakref.WeakValueDictionary()
        """Outermost modules seen, by id: where names of parameters and modules come from."""
        self.last_root: Callable[[], torch.nn.Module | None] = lambda: None
        self.refused: Refused | None = None
        self.forward_mode = False
        """Whether the last call was inside torch.func.jvp or jacfwd."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the call, then note it if it made or changed a tensor."""
        tape = self.tape
        if tape.random_state is None and not self.paused:
            tape.random_state = RandomState()
        try:
            out = func(*args, **kwargs) if kwargs else func(*args)
        except BaseException as error:
            hide(error)
            self._refuse(error, func, args, kwargs)
            raise
        kind = type(out)
        if kind is not _Tensor and kind in _PLAIN:  # x.shape, x.dim(): a third of all calls in small scripts
            if kind in _VALUES and func in _READERS and not self.paused and _transform() is None:
                self.value_read(args[0], out)
            return out
        if self.paused or (out is None and not _kinds[func] & _WRITES):
            return out
        is_ = _kinds[func]
        if (_transform() is not None or self.forward_mode) and self._is_transforming():
            return out
        if is_ & _SPECIAL and self._is_told_otherwise(is_, args, out):
            return out
        self.refused = None
        frame = sys._getframe(1)
        code = frame.f_code
        try:
            if places[code.co_filename] is OWN:
                instruction, own = frame.f_lasti, None
            else:
                code, instruction, own = self.site_of(frame)
            if is_ & _UNUSUAL == FRESH and kind is _Tensor and not kwargs:
                tape.note_fresh(func, args, out, code, instruction, own, self.module)
            else:
                tape.note(func, args, kwargs, out, code, instruction, own, self.module, is_)
        except Exception:
            # A kind of tensor that cannot be noted must not break the script: this step cannot be repeated.
            tape.unnoted = True
        return out

    def _is_told_otherwise(self, kind: int, args: tuple[Any, ...], out: Any) -> bool:
        """Whether the call is no entry: its result is an input of the step, or numbers handed to the script."""
        if kind & _ARRAY:
            self._array_read(args[0])
        if kind & _LOGITS and self.keeps_logits and checkable(args[0]):
            self.logits = args[0].detach()
        return bool(kind & (_INPUT | _ARRAY)) or (bool(kind & _VIEW) and _reinterprets(args[0], out))

    def _is_transforming(self) -> bool:
        """Whether a torch.func transform runs; one that is forward-mode differentiation is counted as it begins."""
        transform = _transform()
        forward = transform is not None and transform.key() == _FORWARD_MODE
        self.unlooked.transforms += forward and not self.forward_mode
        self.forward_mode = forward
        return transform is not None

    def _array_read(self, tensor: torch.Tensor) -> None:
        """Note where the script reads numbers that are not finite: legal, as in ``value_read``."""
        with self.pause(), torch.no_grad():
            if checkable(tensor) and not tensor.is_complex() and not finite(tensor):
                first = float(tensor[~tensor.isfinite()].flatten()[0].item())
                self.unlooked.read(first, caller(sys._getframe(3)))

    def _refuse(self, error: BaseException, func: Callable[..., Any], args: Any, kwargs: Any) -> None:
        """Keep what a call that raised was given, if that was not finite: it may be why."""
        if self.paused or transforming():
            return
        # A device that has just failed may fail again.
        with contextlib.suppress(Exception), self.pause(), torch.no_grad():
            given = [item for item in tensors_in([args, kwargs or {}]) if checkable(item)]
            bad = [item for item in given if not finite(item)]
            self.refused = Refused(id(error), operation(func), bad) if bad else None

    def site_of(self, frame: FrameType) -> Site:
        """The place of a call: the innermost frame that is not torch's, from ``frame`` outwards.

        The walk ends at the running module, if it is one of torch's, or at its call: that place is known.
        """
        known, code, inside = self.site, frame.f_code, None
        if known is not None and self.module is not None:
            module = self.module[0]
            inside = _forwards[type(module)] if "forward" not in module.__dict__ else None
            if code is inside:
                return known
        while (where := places[code.co_filename]) is FOREIGN and frame.f_back is not None:
            if known is not None and (code is inside or code.co_filename == _MODULE_CALLS):
                return known
            frame = frame.f_back
            code = frame.f_code
        own = own_line(frame, self.line, _MODULE_CALLS) if where is not OWN else None
        return code, frame.f_lasti, own

    def opaque(self, func: Opaque, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a call that the mode cannot see into, and note it as one entry."""
        if self.paused:
            return func(*args, **kwargs)
        if self.tape.random_state is None:
            self.tape.random_state = RandomState()
        if func.module is not None:
            self.tape.modules[id(func.module)] = func.module
        if func.compiled and self.module is None and not (_grad_enabled() or self.unlooked.every_op):
            self.unlooked.no_grad += 1
        with self.pause():
            self.step_aside()
            try:
                out = func(*args, **kwargs)
                # Past the wrapper of such calls; still aside, or what noting asks of a tensor is an entry of its own.
                self.refused = None
                site = self.site_of(sys._getframe(2))
                self.tape.note(func, args, kwargs, out, *site, self.module, DRAWS)
            finally:
                self.step_back()
        return out

    def step_aside(self) -> None:
        """Leave torch's stack of modes, if this one is on top: cheaper than to be called and ignore it."""
        if self.is_on_top():
            _pop()
            self.aside = True

    def is_on_top(self) -> bool:
        """Whether it is the mode that torch asks first."""
        depth = _depth()
        return bool(depth) and _top(depth - 1) is self

    def step_back(self) -> None:
        """Undo ``step_aside``."""
        if self.aside:
            _push(self)
            self.aside = False

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Note nothing inside: backward, the optimizer, our own arithmetic."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """``pause``, and leave torch's stack of modes meanwhile, unless that was done already."""
        was_aside = self.aside
        with self.pause():
            self.step_aside()
            try:
                yield
            finally:
                if not was_aside:
                    self.step_back()


class Recorders(threading.local):
    """A recorder for each thread. Only threads that ``followed`` them have one that notes anything."""

    def __init__(self, value_read: Callable[[torch.Tensor, bool | float], None], unlooked: Unlooked) -> None:
        # Python calls this once more in each thread that asks.
        self.recorder = Recorder(value_read, unlooked)
        self.recorder.paused = True

    def start(self) -> Recorder:
        """The running thread's recorder, which is to note what it sees."""
        self.recorder.tape.autocast = autocast_state()
        self.recorder.paused = False
        return self.recorder

    @contextlib.contextmanager
    def threads_followed(self) -> Iterator[None]:
        """Record threads that start meanwhile."""
        original = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

        def bootstrap_inner(thread: threading.Thread) -> None:
            with self.start() as recorder:
                try:
                    original(thread)
                finally:
                    recorder.step_back()

        threading.Thread._bootstrap_inner = bootstrap_inner  # type: ignore[attr-defined]
        try:
            yield
        finally:
            threading.Thread._bootstrap_inner = original  # type: ignore[attr-defined]


def transforming() -> bool:
    """Whether a torch.func transform (vmap, grad) is running: its tensors have no numbers of their own."""
    return _transform() is not None


def _reinterprets(given: torch.Tensor, out: torch.Tensor) -> bool:
    """Whether a view takes bytes for numbers, as safetensors does: they are an input of the step."""
    return out.dtype is not given.dtype and not given.is_floating_point()


class _Forwards(dict[type[torch.nn.Module], CodeType | None]):
    """What runs in modules of a class. A dict, since it is asked per call."""

    def __missing__(self, kind: type[torch.nn.Module]) -> CodeType | None:
        # A class that torch.jit.trace makes has a forward that cannot be asked for.
        self[kind] = found = getattr(getattr(kind, "forward", None), "__code__", None)
        return found


_forwards = _Forwards()


def _is_fresh(func: Callable[..., Any]) -> bool:
    name = getattr(func, "__name__", "")
    places = (torch.Tensor, torch, torch.nn.functional)
    spellings = (name, f"__{name}__")  # Tensor.__pow__ is called pow
    return name in _FRESH and any(getattr(place, one, None) is func for place in places for one in spellings)


class _Kinds(dict[Callable[..., Any], int]):
    """What there is to know of a torch function, as flags. A dict, since it is asked per call."""

    def __missing__(self, func: Callable[..., Any]) -> int:
        inside = getattr(func, "__module__", "") == torch.nn.init.__name__
        draws = inside or isinstance(func, Opaque) or getattr(func, "__name__", "") in _RANDOM
        found = (
            DRAWS * draws
            + FRESH * _is_fresh(func)
            + _WRITES * (func in _WRITERS)
            + _INPUT * (func in _GIVEN)
            + _ARRAY * (func in _ARRAYS)
            + _VIEW * (func is torch.Tensor.view)
            + _LOGITS * (operation(func) in SOFTMAX_LIKE)
            + _IN_PLACE * ("inplace" in getattr(getattr(func, "__code__", None), "co_varnames", ()))
        )
        if not isinstance(func, Opaque):  # there is a new one for each call
            self[func] = found
        return found


_kinds = _Kinds()
