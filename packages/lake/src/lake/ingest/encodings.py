"""Choose the encodings of a shard's columns from its first rows, and reuse them for later shards.

One choice costs about 3 ms of CPU per column (it sorts and compresses a sample), so a writer
chooses once for each `_CHOICE_BYTES` of rows and not for each shard. All row groups of a shard have
the same encodings. A dictionary that outgrows its page in a later group costs only space: Arrow
writes plain values from there on.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from emsqrt.io.parquet_encodings import Encodings, choose_encodings
from sennit_core.units import MIB

__all__ = ["EncodingChooser"]

_CHOICE_BYTES = 128 * MIB
"""Arrow bytes per choice, so that the choice costs less than 3 % of the encoding."""
_COLUMNS_MAX = 512
"""Wider tables use Arrow's defaults; at 3 ms per column a choice would cost more than it saves."""
_DICTIONARY_BYTES = MIB
"""Arrow's limit of a dictionary page, beyond which a column falls back to plain values."""
_DELTA_SHARE = 0.9
"""Deltas must be this much smaller than a dictionary, which engines filter without decoding:
TPC-H's dates are 3 % smaller as deltas, but query 6 then needs 1.4 times the CPU in DuckDB."""
_DEFAULTS = Encodings(dictionary=True, others={}, compression="zstd")


class EncodingChooser:
    """Chooses the encodings of the shards of one writer."""

    def __init__(self) -> None:
        # Chosen for `_schema`; both are None until the first shard. A widened column has another
        # schema, and needs another choice.
        self._chosen: Encodings | None = None
        self._schema: pa.Schema | None = None
        self._bytes_since = 0  # Arrow bytes of the shards begun since the last choice

    def writer_options(self, table: pa.Table) -> dict[str, Any]:
        """Return the `ParquetWriter` arguments for a new shard.

        Args:
            table: The shard's first row group.
        """
        if self._is_stale(table):
            self._chosen = self._choose(table)
            self._schema = table.schema
            self._bytes_since = 0
        assert self._chosen is not None
        return {
            "compression": self._chosen.compression,
            "use_dictionary": self._chosen.dictionary,
            "column_encoding": self._chosen.others or None,
            # As EM-√'s choice assumes: delta encoding is for integers only.
            "store_decimal_as_integer": True,
        }

    def add(self, count: int) -> None:
        """Add written Arrow bytes to the count since the last choice."""
        self._bytes_since += count

    def _is_stale(self, table: pa.Table) -> bool:
        if self._schema is None or not table.schema.equals(self._schema):
            return True
        return self._bytes_since >= _CHOICE_BYTES

    def _choose(self, table: pa.Table) -> Encodings:
        if not table.num_rows or table.num_columns > _COLUMNS_MAX:
            return _DEFAULTS
        return choose_encodings(table, _DICTIONARY_BYTES, "zstd", delta_share=_DELTA_SHARE)
