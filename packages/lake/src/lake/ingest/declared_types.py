"""Read text as a declared type: that of a dataset's column in an append, or of the option `columns`.

The kinds of `lake.ingest.columns` are those that can be inferred. The other types are only read where
they are declared, from plain notation, and a value that the type does not hold is refused.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from lake.ingest.columns import KINDS, Kind, Misfit, Read, read_exact

__all__ = ["declared_kind"]

_PLAIN = ("bool", "int", "float", "date", "timestamp", "timestamp-utc", "text")
"""One kind for each type that is inferred, in the notation that the others are converted to."""
_INFERRED = {KINDS[name].type: name for name in _PLAIN}
_DECIMAL = r"^[+-]?(0|[1-9]\d*)?(\.\d+)?([eE][+-]?\d{1,2})?$"
_TIME = r"^\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?$"


def declared_kind(wanted: pa.DataType) -> str | None:
    """Return the kind that reads a type, a key of `KINDS`; None if text holds no such values."""
    if wanted in _INFERRED:
        return _INFERRED[wanted]
    name = f"declared {wanted}"
    if name not in KINDS:
        read = _reader(wanted)
        if read is None:
            return None
        # Kept: a type has arguments, such as a precision, so there is no list of all.
        KINDS[name] = Kind(wanted, read)
    return name


def _reader(wanted: pa.DataType) -> Read | None:
    if pa.types.is_integer(wanted):
        return lambda text: read_exact(text, wanted)
    if pa.types.is_float32(wanted):
        return _read_float32
    if pa.types.is_decimal(wanted):
        return _matching(_DECIMAL, wanted)
    if pa.types.is_timestamp(wanted):
        return lambda text: text.cast(wanted)
    if pa.types.is_time64(wanted):
        return lambda text: _read_time(text, wanted)
    return None


def _matching(pattern: str, wanted: pa.DataType) -> Read:
    def read(text: pa.StringArray) -> pa.Array:
        _check(text, pattern)
        return text.cast(wanted)

    return read


def _read_float32(text: pa.StringArray) -> pa.Array:
    values = KINDS["float"].read(text)
    narrow = values.cast(pa.float32())
    # Digits are rounded, as SQL rounds them; a number out of range would become infinity.
    if not pc.is_inf(narrow).equals(pc.is_inf(values)):
        raise Misfit
    return narrow


def _read_time(text: pa.StringArray, wanted: pa.DataType) -> pa.Array:
    # Arrow parses no times alone.
    _check(text, _TIME)
    day = pc.binary_join_element_wise("1970-01-01", text, " ")
    return day.cast(pa.timestamp("us")).cast(wanted)


def _check(text: pa.StringArray, pattern: str) -> None:
    if pc.all(pc.match_substring_regex(text, pattern), min_count=0).as_py() is False:
        raise Misfit
