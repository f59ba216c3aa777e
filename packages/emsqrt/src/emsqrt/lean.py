"""How a process that holds a cap is kept small: set before it starts, and in its first lines."""

from __future__ import annotations

import sys

from sennit_core.errors import Unsupported

LEAN_ENVIRONMENT = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(256 << 10),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 10),
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
"""Keeps allocators from reserving and hoarding: freed blocks go back to the kernel at once."""


class _NoPandas:
    """Makes `import pandas` fail here: pyarrow imports it on its own, for 30 MB of every cap."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError("executors do without pandas", name=name)


def do_without_pandas() -> None:
    """Let no library load pandas in this process."""
    sys.meta_path.insert(0, _NoPandas)


def require_arrow(what: str) -> None:
    """Refuse what only the arrow tier can do, where its libraries are not installed.

    Raises:
        Unsupported: says what to install.
    """
    from importlib.util import find_spec

    missing = [name for name in ("pyarrow", "numpy", "ormsgpack") if find_spec(name) is None]
    if missing:
        raise Unsupported(
            f"{what} needs {' and '.join(missing)}",
            hint='pip install "sennit-emsqrt[arrow]"; CSV and JSON Lines need nothing',
        )


def load_arrow() -> None:
    """Load pyarrow, and let it start its one thread of each kind, before the cap is watched."""
    import pyarrow as pa
    from pyarrow import csv

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    csv.read_csv(pa.BufferReader(b"a\n1\n"), read_options=csv.ReadOptions(use_threads=False))
