"""One NaN in a copy of a checkpoint, at any place that holds floating-point numbers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

NAN = float("nan")
Keys = tuple[Any, ...]


def places(content: Any, keys: Keys = ()) -> Iterator[Keys]:
    """The keys of every floating or complex tensor, array and Python float."""
    if isinstance(content, torch.Tensor):
        if (content.is_floating_point() or content.is_complex()) and content.numel():
            yield keys
    elif isinstance(content, np.ndarray):
        if content.dtype.kind in "fc" and content.size:
            yield keys
    elif isinstance(content, float):
        yield keys
    elif isinstance(content, argparse.Namespace):
        yield from places(vars(content), keys)
    elif isinstance(content, Mapping | list | tuple):
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, item in items:
            yield from places(item, (*keys, key))


def planted(content: Any, keys: Keys) -> Any:
    """The content with a NaN there; nothing of the original is changed."""
    if not keys:
        return _spoilt(content)
    key, *rest = keys
    if isinstance(content, argparse.Namespace):
        return argparse.Namespace(**planted(vars(content), keys))
    if isinstance(content, Mapping):
        return {name: planted(item, tuple(rest)) if name == key else item for name, item in content.items()}
    items = [planted(item, tuple(rest)) if index == key else item for index, item in enumerate(content)]
    return tuple(items) if isinstance(content, tuple) else items


def _spoilt(value: Any) -> Any:
    if isinstance(value, float):
        return NAN
    copy = value.clone() if isinstance(value, torch.Tensor) else value.copy()
    imaginary = copy.is_complex() if isinstance(copy, torch.Tensor) else copy.dtype.kind == "c"
    copy.reshape(-1)[-1] = complex(0, NAN) if imaginary else NAN
    return copy
