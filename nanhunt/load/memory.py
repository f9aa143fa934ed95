"""Values in memory become tensors like those of a file: arrays, lists, torch tensors, and whatever names them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt

from nanhunt.errors import NanhuntError
from nanhunt.load.container import Container, NotNumbers, RefusedTensor
from nanhunt.load.numbers import settings_of
from nanhunt.load.tensor import BITS, Tensor

if TYPE_CHECKING:
    import torch

FILE = "<memory>"
DEEPEST = 100
"""Levels of dicts and lists."""
NAMED = 1
"""The level of what the user's own dict holds: further in, in an optimizer's settings, (0.9, 0.999) are two numbers."""


def holds_names(value: object) -> bool:
    """Whether it is a dict of tensors, or a module with a state_dict: several tensors with names."""
    return isinstance(value, Mapping) or _is_module(value)


def container_of(value: Any, *, lists: bool = False) -> Container:
    """The tensors of nested dicts, lists and tuples under dotted names, or those of a module's state_dict.

    Rows of numbers in lists are one tensor, and so are labels; a list of floats, such as a history of losses, where
    ``lists`` says so. Raises NanhuntError for what nests absurdly deep, as a dict that holds itself does.
    """
    tensors: dict[str, Tensor] = {}
    refused: dict[str, RefusedTensor] = {}
    for name, each in _walk("", value.state_dict() if _is_module(value) else value, 0, lists):
        try:
            tensors[name] = tensor_of(each, name)
        except NanhuntError as error:
            kind = RefusedTensor if _is_tensor(each) or _has_floats(each) else NotNumbers
            refused[name] = kind(error.message, error.hint)
    return Container(FILE, tensors, "memory", refused, settings=settings_of(value))


def tensor_of(value: Any, name: str) -> Tensor:
    """One tensor; torch's values are shared, not copied, where they are contiguous on the CPU.

    Raises NanhuntError for what has no plain array of values.
    """
    if _is_tensor(value):
        dtype, array = _from_torch(value, name)
    else:
        _check_device(value, name)
        try:
            array = np.from_dlpack(value) if _speaks_dlpack_only(value) else np.asarray(value)
        except (ValueError, TypeError) as error:
            ragged = "inhomogeneous" in str(error)  # NumPy's word, in a sentence about its own array
            reason = "its rows differ in length" if ragged else str(error)
            raise NanhuntError(
                f"{name} is no array of numbers: {reason}.", "Give rows of equal length."
            ) from None
        dtype = array.dtype.name
        array = array.view(BITS[dtype]) if dtype in BITS else array
    return Tensor(FILE, name, dtype, array.shape, lambda: array)


def _walk(name: str, value: object, depth: int, lists: bool) -> Iterator[tuple[str, Any]]:
    """Every array, tensor, float and list of rows, with the keys to it; text and whole numbers are settings."""
    if depth > DEEPEST:
        raise NanhuntError(
            f"{name} nests its contents absurdly, over {DEEPEST} levels deep.", "Pass the tensors."
        )
    if _are_numbers(value, depth, lists):
        yield name, value
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, each in items:
            yield from _walk(f"{name}.{key}" if name else str(key), each, depth + 1, lists)
    elif isinstance(value, float | complex | np.ndarray | np.generic) or _is_array(value):
        yield name, value


def _are_numbers(value: object, depth: int, lists: bool) -> bool:
    """Rows of numbers in lists, of equal length or not; one list, where the user's own dict names it."""
    if not isinstance(value, list | tuple) or not value:
        return False
    rows = all(isinstance(each, list | tuple) for each in value)
    named = depth == NAMED and (lists or not _has_floats(value))
    return (rows or named) and _nested(value, DEEPEST - depth)


def _nested(value: object, levels: int) -> bool:
    """Whether there is a number, and nothing but numbers, in so many levels of lists."""
    if isinstance(value, list | tuple):
        return levels > 0 and len(value) > 0 and all(_nested(each, levels - 1) for each in value)
    return isinstance(value, int | float | complex | np.generic)


def _has_floats(value: object) -> bool:
    """Whether rows that cannot be read could be judged: whole numbers of unequal length are tokens of a batch."""
    return any(map(_has_floats, value)) if isinstance(value, list | tuple) else isinstance(value, float)


CPU = 1
"""DLDeviceType kDLCPU (https://dmlc.github.io/dlpack/latest/c_api.html); NumPy cannot read what the others have."""
DEVICES = {2: "CUDA", 3: "pinned CUDA memory", 7: "Vulkan", 8: "Metal", 10: "ROCm", 13: "managed CUDA memory"}


def _check_device(value: Any, name: str) -> None:
    """Raises NanhuntError for an array on a GPU: copying it is the owner's to ask for."""
    if hasattr(value, "__dlpack_device__") and not isinstance(value, np.ndarray):
        kind = int(value.__dlpack_device__()[0])
        if kind != CPU:
            where = DEVICES.get(kind, f"DLPack type {kind}")
            raise NanhuntError(
                f"{name} is on another device ({where}).",
                "Copy it to the host first: x.get() for CuPy, jax.device_get(x) for JAX.",
            )


def _speaks_dlpack_only(value: object) -> bool:
    return hasattr(value, "__dlpack__") and not hasattr(value, "__array__")


def _is_array(value: object) -> bool:
    """A tensor of torch, or an array of any library: JAX, CuPy, TensorFlow, xarray."""
    return _is_tensor(value) or hasattr(value, "__array__") or hasattr(value, "__dlpack__")


def _is_tensor(value: object) -> TypeGuard[torch.Tensor]:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_module(value: object) -> TypeGuard[torch.nn.Module]:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def _from_torch(value: torch.Tensor, name: str) -> tuple[str, npt.NDArray[Any]]:
    import torch

    dtype = str(value.dtype).removeprefix("torch.")
    if problem := _problem(value, dtype):
        raise NanhuntError(f"{name} {problem[0]}.", problem[1])
    try:
        value = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
        if dtype in BITS:
            value = value.view(torch.int16 if BITS[dtype] == "uint16" else torch.uint8)
            return dtype, value.numpy().view(BITS[dtype])
        return dtype, value.numpy()
    except (RuntimeError, TypeError) as error:
        what = f"{name} is a {type(value).__name__} without a plain array of values"
        raise NanhuntError(f"{what}: {str(error).splitlines()[0]}", "Pass a plain tensor.") from None


def _problem(value: torch.Tensor, dtype: str) -> tuple[str, str] | None:
    """What a tensor is that has no plain array of values, and the way to one."""
    if value.is_meta:
        return "is a meta tensor: it has a shape and no values", "Load its values first."
    if value.is_quantized:
        return f"is quantized ({dtype})", "Pass tensor.dequantize()."
    if value.is_nested:
        return (
            "is a nested tensor, whose rows differ in length",
            "Pass tensor.to_padded_tensor(...), or its parts.",
        )
    if str(value.layout) != "torch.strided":
        return f"is not dense ({str(value.layout).removeprefix('torch.')})", "Pass tensor.to_dense()."
    if hasattr(value, "full_tensor"):
        return "is a DTensor, of which other processes hold parts", "Pass tensor.full_tensor()."
    return None
