"""emsqrt._kernel: loops over bytes in C11; Python owns policy, files and memory.

Layering: columns.h (a batch as Arrow lays it out), rows.h (a key that compares by its bytes, and a
payload) <- everything else. `*.c` is free of Python.h, `bind_*.c` and `module.c` are the extension.
No function allocates beyond the memory it is handed.
"""

from emsqrt._kernel._native import Columns

__all__ = [
    "Columns",
]
