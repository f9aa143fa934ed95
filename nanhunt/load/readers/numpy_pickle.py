"""NumPy arrays and scalars as pickles spell them, rebuilt from their bytes without NumPy's own unpickling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nanhunt.load.container import NotNumbers, RefusedTensor
from nanhunt.load.readers import npy
from nanhunt.load.readers.pickled import Global, Instance, as_bytes


def numpy_array(value: Instance, label: str) -> tuple[str, npt.NDArray[Any]]:
    """The dtype (torch's spelling) and the values of a pickled array or scalar; the bytes are not copied.

    Raises NotNumbers for text and objects, RefusedTensor for what is damaged or has no dtype we know.
    """
    match value.made_by.name, value.args, value.state:
        case "_reconstruct", _, (_, tuple(shape), Instance() as dtype, bool(fortran), raw):
            order = "F" if fortran else "C"
        case "scalar", (Instance() as dtype, raw), _:
            shape, order = (), "C"
        case "_frombuffer", (raw, Instance() as dtype, tuple(shape), str(order)), _:
            pass
        case _:
            raise RefusedTensor(f"{label} is a NumPy array in a form nanhunt does not know.", _HINT)
    name, stored = npy.dtype_of(_descr(dtype), label, None)
    content = as_bytes(raw)
    if content is None:
        raise NotNumbers(f"{label} is a NumPy array of objects, not numbers.", _HINT)
    whole = all(type(size) is int and size >= 0 for size in shape)
    if not whole or len(content) != math.prod(shape) * stored.itemsize:
        raise RefusedTensor(f"{label} is a NumPy array whose bytes do not fit its shape.", _HINT)
    flat = np.frombuffer(content, stored).astype(stored.newbyteorder("="), copy=False)
    return name, flat.reshape(shape, order="F" if order == "F" else "C")


_HINT = "Save it as a tensor: torch.from_numpy(array)."


def _descr(dtype: Instance) -> str:
    """A pickled dtype as the header of a .npy has it: "<f4"."""
    code = dtype.args[0] if dtype.args else ""
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "="
    if isinstance(code, Global):
        return code.name  # ml_dtypes.bfloat16
    return f"{order if order in ('<', '>', '|', '=') else '='}{code}"
