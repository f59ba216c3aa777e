"""What a CSV column's text means: the kinds, how each reads text, and which kind is wider.

Every value is first text. A *kind* turns a whole column of a block into typed values, or refuses
it. Kinds are exact: text becomes an integer only if printing the integer gives the same text
back, so `007`, `0x1F` and a twenty-digit account number stay what they were. When a value breaks
a column's kind, the column moves to the first wider kind that reads it; the widest reads all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["KINDS", "Guess", "first_misfit", "infer_kind", "read_column", "wider_kind"]

NULL_WORDS = ("", "NA", "N/A", "n/a", "NULL", "null", "#N/A", "\\N")
_INFINITIES = ("inf", "infinity", "+inf", "+infinity", "-inf", "-infinity")
_DAY = r"(\d{1,2})"
_TIME = r"([ T]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?)"
_PROBE_ROWS = 64

Read = Callable[[pa.StringArray], pa.Array]


class Misfit(Exception):
    """Some text of the column is not of the kind."""


@dataclass(frozen=True)
class Kind:
    """One way to read a column.

    Args:
        type: The Arrow type of the values.
        read: Turns text (nulls already told) into values; raises `Misfit` or `ArrowInvalid`.
        looks: What each value of the kind looks like, roughly: a first value that does not saves
            reading the column, of which there may be thousands.
        wider: Kinds that read everything this one reads, to be tried in order before text.
    """

    type: pa.DataType
    read: Read
    looks: re.Pattern[str] = re.compile("")
    wider: tuple[str, ...] = ()


@dataclass(frozen=True)
class Guess:
    """The kind inferred for a column, and why it stayed text when there was a choice."""

    kind: str
    note: str | None = None


def _all(condition: pa.BooleanArray) -> bool:
    return pc.all(condition, min_count=0).as_py() is not False


def _require(condition: pa.BooleanArray) -> None:
    if not _all(condition):
        raise Misfit


def _read_nothing_yet(text: pa.StringArray) -> pa.Array | None:
    """A column without values so far keeps its words: it may turn out to be text."""
    return text if _all(pc.is_null(_tell_nulls(text))) else None


def _read_bool(text: pa.StringArray) -> pa.Array:
    lower = pc.utf8_lower(text)
    _require(pc.is_in(lower, value_set=pa.array(["true", "false", None])))
    return pc.equal(lower, "true")


def _read_int(text: pa.StringArray) -> pa.Array:
    values = text.cast(pa.int64())
    if not values.cast(pa.string()).equals(text):
        raise Misfit
    return values


def _read_float(text: pa.StringArray) -> pa.Array:
    # Leading zeros and hex are codes, and 17 digits or more do not fit a double.
    _require(pc.invert(pc.match_substring_regex(text, r"^[+-]?(0[0-9xX]|[0-9]{17,}$)")))
    values = text.cast(pa.float64())
    infinite = pc.is_inf(values)
    if pc.any(infinite).as_py():
        words = pc.utf8_lower(text.filter(infinite))
        _require(pc.is_in(words, value_set=pa.array(_INFINITIES)))
    return values


def _read_grouped_int(text: pa.StringArray) -> pa.Array:
    _require(pc.match_substring_regex(text, r"^[+-]?([1-9]\d{0,2}(,\d{3})+|[1-9]\d{0,2}|0)$"))
    return pc.replace_substring(text, ",", "").cast(pa.int64())


def _read_grouped(text: pa.StringArray) -> pa.Array:
    _require(pc.match_substring_regex(text, r"^[+-]?([1-9]\d{0,2}(,\d{3})+|\d+)(\.\d+)?$"))
    return _read_float(pc.replace_substring(text, ",", ""))


def _read_comma(text: pa.StringArray) -> pa.Array:
    _require(pc.match_substring_regex(text, r"^[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?$"))
    points = pc.replace_substring(pc.replace_substring(text, ".", ""), ",", ".")
    return _read_float(points)


def _reordered(pattern: str, order: str, target: pa.DataType) -> Read:
    """Read dates of another order by rewriting them as ISO 8601, which Arrow checks strictly."""
    whole = f"^{pattern}{_TIME}?$" if pa.types.is_timestamp(target) else f"^{pattern}$"
    tail = r"\4" if pa.types.is_timestamp(target) else ""

    def read(text: pa.StringArray) -> pa.Array:
        _require(pc.match_substring_regex(text, whole))
        iso = pc.replace_substring_regex(text, whole, order + tail)
        padded = pc.replace_substring_regex(iso, r"-(\d)-", r"-0\1-")
        padded = pc.replace_substring_regex(padded, r"^(\d{4}-\d{2})-(\d)($|[ T])", r"\1-0\2\3")
        return padded.cast(target)

    return read


def _cast(target: pa.DataType) -> Read:
    def read(text: pa.StringArray) -> pa.Array:
        return text.cast(target)

    return read


_DATE = pa.date32()
_STAMP = pa.timestamp("us")
_UTC = pa.timestamp("us", tz="UTC")
_DMY = rf"{_DAY}[/.\-]{_DAY}[/.\-](\d{{4}})"
_DOTTED = rf"{_DAY}\.{_DAY}\.(\d{{4}})"
_YMD = rf"(\d{{4}})[/.]{_DAY}[/.]{_DAY}"

_NUMBER = re.compile(r"[+-]?[\d.]|[+-]?inf|nan", re.IGNORECASE)
_ISO = re.compile(r"\d{4}-")
_DAY_FIRST = re.compile(r"\d{1,2}[/.\-]")
_YEAR_FIRST = re.compile(r"\d{4}[/.]")

KINDS: dict[str, Kind] = {
    "null": Kind(pa.string(), lambda text: text),
    "bool": Kind(pa.bool_(), _read_bool, re.compile("true|false", re.IGNORECASE)),
    "int": Kind(pa.int64(), _read_int, _NUMBER, ("float",)),
    "float": Kind(pa.float64(), _read_float, _NUMBER),
    "date": Kind(_DATE, _cast(_DATE), _ISO, ("timestamp",)),
    "timestamp": Kind(_STAMP, _cast(_STAMP), _ISO),
    "timestamp-utc": Kind(_UTC, _cast(_UTC), _ISO),
    "date-ymd": Kind(_DATE, _reordered(_YMD, r"\1-\2-\3", _DATE), _YEAR_FIRST, ("timestamp-ymd",)),
    "timestamp-ymd": Kind(_STAMP, _reordered(_YMD, r"\1-\2-\3", _STAMP), _YEAR_FIRST),
    "date-dmy": Kind(_DATE, _reordered(_DMY, r"\3-\2-\1", _DATE), _DAY_FIRST, ("timestamp-dmy",)),
    "timestamp-dmy": Kind(_STAMP, _reordered(_DMY, r"\3-\2-\1", _STAMP), _DAY_FIRST),
    "date-mdy": Kind(_DATE, _reordered(_DMY, r"\3-\1-\2", _DATE), _DAY_FIRST, ("timestamp-mdy",)),
    "timestamp-mdy": Kind(_STAMP, _reordered(_DMY, r"\3-\1-\2", _STAMP), _DAY_FIRST),
    "comma": Kind(pa.float64(), _read_comma, _NUMBER),
    "grouped-int": Kind(pa.int64(), _read_grouped_int, _NUMBER, ("grouped",)),
    "grouped": Kind(pa.float64(), _read_grouped, _NUMBER),
    "text": Kind(pa.string(), lambda text: text),
}
_SIMPLE = ("bool", "int", "float", "date", "timestamp", "timestamp-utc", "date-ymd")
_SIMPLE_LATE = ("timestamp-ymd",)


def read_column(kind: str, text: pa.StringArray) -> pa.Array | None:
    """The column's values, or None when some text is not of the kind.

    Args:
        kind: A key of `KINDS`.
        text: The column; an empty field without quotes is null already.
    """
    if kind == "text":
        return text
    if kind == "null":
        return _read_nothing_yet(text)
    told = _tell_nulls(text)
    try:
        return KINDS[kind].read(told)
    except (Misfit, pa.ArrowInvalid):
        pass
    try:
        return KINDS[kind].read(_tell_nulls(pc.utf8_trim_whitespace(text)))
    except (Misfit, pa.ArrowInvalid):
        return None


def first_misfit(kind: str, text: pa.StringArray) -> int:
    """Index of the first text that is not of the kind; the column must have one."""
    start, length = 0, len(text)
    while length > 1:
        half = length // 2
        if read_column(kind, text.slice(start, half)) is None:
            length = half
        else:
            start, length = start + half, length - half
    return start


def infer_kind(text: pa.StringArray, *, date_order: str | None = None) -> Guess:
    """The narrowest kind that reads the whole column.

    Args:
        text: A sample of the column.
        date_order: `dmy` or `mdy` settles what 03/04/2024 means; None leaves it text when no
            value of the sample tells.
    """
    first = _first_value(text)
    if first is None:
        return Guess("null")
    for kind in (*_SIMPLE, *_SIMPLE_LATE):
        if KINDS[kind].looks.match(first) and _reads(kind, text):
            return Guess(kind)
    if _DAY_FIRST.match(first) and (found := _infer_day_order(text, date_order)):
        return found
    return (_NUMBER.match(first) and _infer_commas(text)) or Guess("text")


def wider_kind(kind: str, text: pa.StringArray, *, date_order: str | None = None) -> str:
    """The first kind wider than `kind` that reads the column, `text` in the end."""
    if kind == "null":
        return infer_kind(text, date_order=date_order).kind
    wider = next((wider for wider in KINDS[kind].wider if _reads(wider, text)), "text")
    if kind == "int" and wider == "text" and (found := _infer_commas(text)):
        return found.kind  # digits alone mean the same, whatever a comma means
    return wider


def _first_value(text: pa.StringArray) -> str | None:
    """The first text that is no word for NULL, stripped; None when there is not even a blank."""
    blank = None
    for start in range(0, len(text), _PROBE_ROWS):
        for value in text.slice(start, _PROBE_ROWS).to_pylist():
            if value is None or value in NULL_WORDS:
                continue
            stripped: str = value.strip()
            if stripped not in NULL_WORDS:
                return stripped
            blank = stripped
    return blank


def _reads(kind: str, text: pa.StringArray) -> bool:
    if len(text) > _PROBE_ROWS and read_column(kind, text.slice(0, _PROBE_ROWS)) is None:
        return False
    return read_column(kind, text) is not None


def _infer_day_order(text: pa.StringArray, date_order: str | None) -> Guess | None:
    for form in ("date", "timestamp"):
        orders = [order for order in ("dmy", "mdy") if _reads(f"{form}-{order}", text)]
        if not orders:
            continue
        if len(orders) == 1:
            return Guess(f"{form}-{orders[0]}")
        if date_order in orders:
            return Guess(f"{form}-{date_order}")
        if _all(pc.match_substring_regex(_tell_nulls(text), rf"^\s*{_DOTTED}")):
            return Guess(f"{form}-dmy")  # dots are written day first everywhere
        return Guess("text", "day and month could be either way round in every value looked at")
    return None


def _infer_commas(text: pa.StringArray) -> Guess | None:
    """Numbers with decimal commas (`1.234,56`), or with commas between thousands (`1,234.56`)."""
    decimal = _reads("comma", text)
    grouped = next((kind for kind in ("grouped-int", "grouped") if _reads(kind, text)), None)
    if decimal and grouped:
        # Every comma is followed by just three digits: "1,234" may be a thousand.
        return Guess("text", "the comma could be a decimal comma or divide thousands")
    if decimal:
        return Guess("comma")
    return Guess(grouped) if grouped else None


def _tell_nulls(text: pa.StringArray) -> pa.StringArray:
    words = pc.is_in(text, value_set=pa.array(NULL_WORDS))
    if not pc.any(words).as_py():
        return text
    return pc.if_else(words, pa.scalar(None, pa.string()), text)
