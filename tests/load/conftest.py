"""Files that the tests of all readers need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nanhunt.errors import NanhuntError
from nanhunt.load import open_path


@pytest.fixture
def logits() -> np.ndarray[Any, Any]:
    """The articles' batch: ordinary, overflowing, ordinary."""
    return np.array([[2, 1, 0.1], [1000, 1, -1000], [3, 2, 1]], dtype=np.float32)


@pytest.fixture
def refusal() -> Callable[..., NanhuntError]:
    """Open a path that must be refused; the error, checked for what every error owes its reader."""

    def refuse(path: str | Path, **options: Any) -> NanhuntError:
        with pytest.raises(NanhuntError) as caught:
            container = open_path(str(path), **options)
            for tensor in container.tensors.values():
                _ = tensor.data
        error = caught.value
        name = "standard input" if path == "-" else Path(path).name
        assert name.casefold() in error.message.casefold()
        assert error.hint
        for text in (error.message, error.hint):
            assert text.isprintable(), text
            assert "Traceback" not in text
        return error

    return refuse
