"""Canonical JSON (RFC 8785): equal values have equal text, and so equal hashes.

Members are ordered by the UTF-16 code units of their names, numbers are written as ECMAScript
writes doubles, strings escape only where JSON requires it, and the text is UTF-8 without white
space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring
from math import isfinite
from typing import Any

from sennit_core.errors import UsageError

__all__ = ["canonical_json"]

_SAFE_INTEGER_MAX = 2**53 - 1


def canonical_json(value: Any) -> bytes:
    """Return the canonical text of `value`: dicts, lists, tuples, str, int, float, bool, None.

    Raises:
        UsageError: NaN, infinity, an integer beyond 2^53 - 1 (write it as a string), a lone
            surrogate, a name that is not a string, or a type that JSON does not have.
    """
    try:
        return _text(value).encode()
    except UnicodeEncodeError as error:
        raise UsageError("canonical JSON cannot hold half of a surrogate pair") from error


def _text(value: Any) -> str:
    # By exact type first: manifests are thousands of small values.
    write = _WRITERS.get(type(value))
    if write is not None:
        return write(value)
    for kind, write in _WRITERS.items():
        if isinstance(value, kind):
            return write(value)
    if isinstance(value, Mapping):
        return _object(value)
    raise UsageError(f"JSON has no {type(value).__name__}")


def _object(value: Mapping[Any, Any]) -> str:
    for name in value:
        if not isinstance(name, str):
            raise UsageError(f"a JSON member's name must be a string, not {name!r}")
    if "".join(value).isascii():
        names = sorted(value)
    else:
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
    return f"{{{','.join([f'{encode_basestring(name)}:{_text(value[name])}' for name in names])}}}"


def _array(value: Sequence[Any]) -> str:
    return f"[{','.join([_text(item) for item in value])}]"


def _integer(value: int) -> str:
    if abs(value) > _SAFE_INTEGER_MAX:
        raise UsageError(
            f"JSON cannot hold the integer {value} exactly", hint="write it as a string"
        )
    return str(int(value))


def _number(value: float) -> str:
    """Write a double as ECMAScript's Number::toString does.

    Python's repr yields the same shortest digits; only the position of the point and the exponent
    differ.
    """
    if not isfinite(value):
        raise UsageError(f"JSON has no {value}", hint="write it as a string")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    point = len(whole) + int(exponent or 0)
    digits = whole + fraction
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    return sign + _place_point(stripped.rstrip("0"), point)


def _place_point(digits: str, point: int) -> str:
    """Write 0.`digits` · 10^`point`, in plain form between 1e-7 and 1e21."""
    count = len(digits)
    if count <= point <= 21:
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if count > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"


_WRITERS: dict[type, Callable[[Any], str]] = {
    str: encode_basestring,
    # Before int, of which it is a subclass.
    bool: lambda value: "true" if value else "false",
    int: _integer,
    float: _number,
    dict: _object,
    list: _array,
    tuple: _array,
    type(None): lambda _: "null",
}
