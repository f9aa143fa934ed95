"""A path becomes named tensors: one file per format, chosen by content and not by suffix.

Importing this imports NumPy and no other package; torch comes in when a checkpoint of its own is opened.
"""

from nanhunt.load.container import Container, NothingToCheck, NotNumbers, RefusedTensor
from nanhunt.load.folder import find
from nanhunt.load.opening import open_path
from nanhunt.load.reference import tensor_at
from nanhunt.load.roles import Role
from nanhunt.load.tensor import Tensor

__all__ = [
    "Container",
    "NotNumbers",
    "NothingToCheck",
    "RefusedTensor",
    "Role",
    "Tensor",
    "find",
    "open_path",
    "tensor_at",
]
