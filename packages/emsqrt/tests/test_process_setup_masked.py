"""Executors do without `numpy.ma` until a caller masks an array."""

import subprocess
import sys

import pytest

PROBE = """
import sys
from emsqrt.process_setup import load_arrow
load_arrow()
import numpy as np
import pyarrow as pa
pa.array(np.arange(3))
assert "numpy.ma.core" not in sys.modules
masked = {made}
assert pa.array(masked).to_pylist() == [1, None]
assert isinstance(masked, np.ma.MaskedArray) and isinstance(masked, sys.modules["numpy.ma"].MaskedArray)
"""


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    "made", ["np.ma.MaskedArray([1, 2], mask=[0, 1])", "np.ma.masked_equal([1, 2], 2)"]
)
def test_arrays_are_accepted_without_importing_numpy_ma(made: str) -> None:
    subprocess.run([sys.executable, "-c", PROBE.format(made=made)], check=True)
