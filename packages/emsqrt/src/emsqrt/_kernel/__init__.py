"""emsqrt._kernel: loops over bytes in C11; Python owns policy, files and memory.

Layering: columns.h (a batch as Arrow lays it out), rows.h (a key that compares by its bytes, and a
payload) <- everything else. `*.c` is free of Python.h, `bind_*.c` and `module.c` are the extension.
No function allocates beyond the memory it is handed.
"""

from emsqrt._kernel._native import (
    Columns,
    KeySpec,
    Merger,
    RowStore,
    csv_last_record_end,
    csv_record_end,
    decode_keys,
    lz4_bound,
    lz4_compress,
    lz4_decompress,
    merger_bytes,
    open_block,
    read_block_head,
    sync_range,
    unpack_rows,
    write_block_head,
    write_lines,
    xxh3_64,
)

__all__ = [
    "Columns",
    "KeySpec",
    "Merger",
    "RowStore",
    "csv_last_record_end",
    "csv_record_end",
    "decode_keys",
    "lz4_bound",
    "lz4_compress",
    "lz4_decompress",
    "merger_bytes",
    "open_block",
    "read_block_head",
    "sync_range",
    "unpack_rows",
    "write_block_head",
    "write_lines",
    "xxh3_64",
]
