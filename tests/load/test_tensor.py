from __future__ import annotations

import numpy as np
import pytest

from nanhunt.load.tensor import Tensor, as_real


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("order", "CF")
def test_parts_of_complex_values_are_not_copied(shape, order):
    values = np.array(np.ones(shape) + 2j, np.complex64, order=order)
    parts = as_real(Tensor("x.pt", "z", "complex64", shape, lambda: values)).data
    np.testing.assert_array_equal(parts, np.stack([values.real, values.imag], -1))
    assert np.shares_memory(parts, values)
