"""Parse CSV columns: the kinds of columns, how each parses text, and which kinds are wider.

Every value is first text. A *kind* parses a whole column of a block into typed values, or refuses
it. Kinds are exact: text becomes an integer only if printing the integer yields the same text, so
`007`, `0x1F` and a twenty-digit account number stay text. When a value does not fit a column's
kind, the column changes to the first wider kind that reads it; the widest kind, text, reads all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "KINDS",
    "Guess",
    "Kind",
    "Misfit",
    "Read",
    "first_misfit",
    "infer_kind",
    "kind_of_type",
    "misfits",
    "mostly",
    "read_column",
    "read_exact",
    "wider_kind",
]

NULL_WORDS = ("", "NA", "N/A", "n/a", "NULL", "null", "#N/A", "\\N")
_INFINITIES = ("inf", "infinity", "+inf", "+infinity", "-inf", "-infinity")
_DAY = r"(\d{1,2})"
_TIME = r"([ T]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?)"
# Most kinds fail within the first values, so these are tried before a whole column is parsed.
_PROBE_ROWS = 64
_MOSTLY_ROWS = 1024
_MOSTLY_MIN = 0.5
_SIMPLE_PATTERNS = {
    "int": r"^\s*-?(0|[1-9]\d{0,17})\s*$",
    "float": r"^\s*-?(0|[1-9]\d*)?(\.\d+)?([eE][+-]?\d+)?\s*$",
    "date": r"^\s*\d{4}-\d{2}-\d{2}\s*$",
}

Read = Callable[[pa.StringArray], pa.Array]


class Misfit(Exception):
    """A value of the column does not fit the kind."""


@dataclass(frozen=True)
class Kind:
    """One way to parse a column.

    Args:
        type: The Arrow type of the values.
        read: Parses text (words for NULL already replaced) into values; raises `Misfit` or
            `ArrowInvalid`.
        looks: A rough pattern of the kind's values: if the first value does not match, the column
            need not be parsed; there may be thousands of columns.
        wider: Kinds that read all values of this one, to be tried in order before text.
    """

    type: pa.DataType
    read: Read
    looks: re.Pattern[str] = re.compile("")
    wider: tuple[str, ...] = ()


@dataclass(frozen=True)
class Guess:
    """The kind inferred for a column, and why it stayed text if it was ambiguous."""

    kind: str
    note: str | None = None


def _all(condition: pa.BooleanArray) -> bool:
    return pc.all(condition, min_count=0).as_py() is not False


def _require(condition: pa.BooleanArray) -> None:
    if not _all(condition):
        raise Misfit


def _read_nothing_yet(text: pa.StringArray) -> pa.Array | None:
    """Keep the words for NULL of a column without values: later values may show that it is text."""
    return text if _all(pc.is_null(_replace_null_words(text))) else None


def _read_bool(text: pa.StringArray) -> pa.Array:
    # Not Arrow's cast, which also reads 0 and 1 as bools.
    lower = pc.utf8_lower(text)
    _require(pc.is_in(lower, value_set=pa.array(["true", "false", None])))
    return pc.equal(lower, "true")


def read_exact(text: pa.StringArray, wanted: pa.DataType) -> pa.Array:
    """Return the integers whose text this is; raise `Misfit` or `ArrowInvalid` if it is no integer's."""
    # Arrow also reads leading zeros and hexadecimal digits, which an integer would lose.
    values = text.cast(wanted)
    if not values.cast(pa.string()).equals(text):
        raise Misfit
    return values


def _read_float(text: pa.StringArray) -> pa.Array:
    # Leading zeros and hex are codes, and a double cannot hold 17 or more digits.
    _require(pc.invert(pc.match_substring_regex(text, r"^[+-]?(0[0-9xX]|[0-9]{17,}$)")))
    values = text.cast(pa.float64())
    # A number out of range, such as 1e999, is parsed as infinity; such a value stays text.
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
    # 1.234,56 becomes 1234.56.
    points = pc.replace_substring(pc.replace_substring(text, ".", ""), ",", ".")
    return _read_float(points)


def _reordered(pattern: str, order: str, target: pa.DataType) -> Read:
    """Read dates of another order by rewriting them to ISO 8601, which Arrow validates."""
    whole = f"^{pattern}{_TIME}?$" if pa.types.is_timestamp(target) else f"^{pattern}$"
    tail = r"\4" if pa.types.is_timestamp(target) else ""

    def read(text: pa.StringArray) -> pa.Array:
        _require(pc.match_substring_regex(text, whole))
        iso = pc.replace_substring_regex(text, whole, order + tail)
        # Arrow's parser requires two digits: first the month, then the day.
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

# Which kinds are wider, before text, which every kind may become:
#
#     null ─▶ any    int ─▶ float, comma, grouped*    date* ─▶ timestamp*    grouped-int ─▶ grouped
#
# A date never becomes one of another order or notation: the values that were inferred decided it.
KINDS: dict[str, Kind] = {
    "null": Kind(pa.string(), lambda text: text),
    "bool": Kind(pa.bool_(), _read_bool, re.compile("true|false", re.IGNORECASE)),
    "int": Kind(pa.int64(), lambda text: read_exact(text, pa.int64()), _NUMBER, ("float",)),
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
# In the order of trial, narrower kinds first. Day-first, month-first and comma numbers are not in
# here: one value may fit several of them, so they are inferred together.
_SIMPLE = ("bool", "int", "float", "date", "timestamp", "timestamp-utc", "date-ymd")
_SIMPLE_LAST = ("timestamp-ymd",)


def read_column(kind: str, text: pa.StringArray) -> pa.Array | None:
    """Return the column's values, or None if some text does not fit the kind.

    Args:
        kind: A key of `KINDS`.
        text: The column; an empty field without quotes is already null.
    """
    if kind == "text":
        return text
    if kind == "null":
        return _read_nothing_yet(text)
    values = _replace_null_words(text)
    try:
        return KINDS[kind].read(values)
    except (Misfit, pa.ArrowInvalid):
        pass
    # Trimmed only after the plain form failed, because few files pad their values.
    try:
        return KINDS[kind].read(_replace_null_words(pc.utf8_trim_whitespace(text)))
    except (Misfit, pa.ArrowInvalid):
        return None


def first_misfit(kind: str, text: pa.StringArray) -> int:
    """Return the index of the first text that does not fit the kind; there must be one."""
    # Bisection: the first half of the remaining range either contains a misfit or is skipped. The
    # kind reads a whole slice at the cost of a few calls, and this runs once for each widening.
    start, length = 0, len(text)
    while length > 1:
        half = length // 2
        if read_column(kind, text.slice(start, half)) is None:
            length = half
        else:
            start, length = start + half, length - half
    return start


def misfits(kind: str, text: pa.StringArray) -> list[int]:
    """Return the indexes of all texts that do not fit the kind."""
    found: list[int] = []
    slices = [(0, len(text))]
    while slices:
        start, length = slices.pop()
        if read_column(kind, text.slice(start, length)) is not None:
            continue
        if length == 1:
            found.append(start)
            continue
        # The later half first, so that the earlier one is taken first from the end of the list.
        half = length // 2
        slices += [(start + half, length - half), (start, half)]
    return found


def kind_of_type(
    wanted: pa.DataType, text: pa.StringArray, *, date_order: str | None = None
) -> Guess:
    """Return the kind of a type that reads most of a sample; the type's own notation if none does.

    `note` is set if two notations read it as different values.

    Args:
        wanted: A type of `KINDS`.
        text: A sample of the column.
        date_order: As of `infer_kind`.
    """
    kinds = [name for name, kind in KINDS.items() if kind.type == wanted and name != "null"]
    if date_order is not None:
        other = "-mdy" if date_order == "dmy" else "-dmy"
        kinds = [name for name in kinds if not name.endswith(other)]
    best = _readers(kinds, text.slice(0, _PROBE_ROWS))
    if len(best) > 1 and best[0] != kinds[0]:
        best = _readers(best, text)
    if len(best) < 2 or best[0] == kinds[0] or _all(_is_dotted(text)):
        return Guess(best[0] if best else "text")
    # Compared by the values that they read: a bad value fits no notation, and decides none.
    found = [_without_misfits(name, text) for name in best]
    is_sure = all(found[0].equals(each) for each in found[1:])
    return Guess(best[0], None if is_sure else "its notation can be read in two ways")


def _without_misfits(kind: str, text: pa.StringArray) -> pa.Array:
    """Return the column's values, NULL for a text that does not fit the kind."""
    unread = misfits(kind, text)
    if unread:
        is_unread = pc.is_in(pa.array(range(len(text))), value_set=pa.array(unread))
        text = pc.if_else(is_unread, pa.scalar(None, pa.string()), text)
    values = read_column(kind, text)
    assert values is not None, "each text fits, or is NULL"
    return values


def _readers(kinds: list[str], text: pa.StringArray) -> list[str]:
    """Return the kinds that read most of a text, in their order."""
    unread = {name: len(misfits(name, text)) for name in kinds}
    return [name for name in kinds if unread[name] == min(unread.values())]


def _is_dotted(text: pa.StringArray) -> pa.BooleanArray:
    # Dates with dots are always day first.
    return pc.match_substring_regex(_replace_null_words(text), rf"^\s*{_DOTTED}")


def mostly(text: pa.StringArray) -> tuple[str, float] | None:
    """Return the simple kind that most values of a text column have, and their share; or None."""
    sample = text.slice(0, _MOSTLY_ROWS).drop_null()
    if not len(sample):
        return None
    shares = {
        kind: pc.mean(pc.match_substring_regex(sample, pattern)).as_py()
        for kind, pattern in _SIMPLE_PATTERNS.items()
    }
    # The first of equal ones, as every integer is a float too.
    best = max(shares, key=lambda kind: shares[kind])
    return (best, round(shares[best], 4)) if shares[best] > _MOSTLY_MIN else None


def infer_kind(text: pa.StringArray, *, date_order: str | None = None) -> Guess:
    """Return the narrowest kind that reads the whole column.

    Args:
        text: A sample of the column.
        date_order: `dmy` or `mdy` determines what 03/04/2024 means; None keeps the column as text
            if the sample is ambiguous.
    """
    first = _first_value(text)
    if first is None:
        return Guess("null")
    for kind in (*_SIMPLE, *_SIMPLE_LAST):
        if KINDS[kind].looks.match(first) and _reads(kind, text):
            return Guess(kind)
    if _DAY_FIRST.match(first) and (found := _infer_day_order(text, date_order)):
        return found
    return (_NUMBER.match(first) and _infer_commas(text)) or Guess("text")


def wider_kind(kind: str, text: pa.StringArray, *, date_order: str | None = None) -> str:
    """Return the first kind wider than `kind` that reads the column; at last `text`."""
    if kind == "null":
        return infer_kind(text, date_order=date_order).kind
    wider = next((wider for wider in KINDS[kind].wider if _reads(wider, text)), "text")
    if kind == "int" and wider == "text" and (found := _infer_commas(text)):
        return found.kind  # digits only: the meaning of commas does not matter
    return wider


def _first_value(text: pa.StringArray) -> str | None:
    """Return the first text that is not a word for NULL, stripped; None if there is none."""
    blank = None
    for start in range(0, len(text), _PROBE_ROWS):
        for value in text.slice(start, _PROBE_ROWS).to_pylist():
            if value is None or value in NULL_WORDS:
                continue
            stripped: str = value.strip()
            if stripped not in NULL_WORDS:
                return stripped
            # A word for NULL with white space around it: the sample only if no other value follows.
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
        if _all(_is_dotted(text)):
            return Guess(f"{form}-dmy")
        return Guess("text", "every value looked at could be day first or month first")
    return None


def _infer_commas(text: pa.StringArray) -> Guess | None:
    """Infer numbers with decimal commas (`1.234,56`) or thousands commas (`1,234.56`)."""
    decimal = _reads("comma", text)
    grouped = next((kind for kind in ("grouped-int", "grouped") if _reads(kind, text)), None)
    if decimal and grouped:
        # Every comma is followed by exactly three digits: "1,234" may be 1234 or 1.234.
        return Guess("text", "the comma could be a decimal comma or a thousands separator")
    if decimal:
        return Guess("comma")
    return Guess(grouped) if grouped else None


def _replace_null_words(text: pa.StringArray) -> pa.StringArray:
    words = pc.is_in(text, value_set=pa.array(NULL_WORDS))
    # Most columns have none: this avoids copying them.
    if not pc.any(words).as_py():
        return text
    return pc.if_else(words, pa.scalar(None, pa.string()), text)
