"""Paths into the tree: `/a/b` in text, a tuple of keys inside.

Limits and characters are those of the Firebase Realtime Database: a key is 1 to 768 bytes of UTF-8
without `. $ # [ ] /` and control characters, and a tree is at most 32 levels deep. The last key may be
`.priority`: the priority of the value at the path above it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeAlias

from elkyn.errors import BadPath

__all__ = [
    "DEPTH_MAX",
    "KEY_BYTES_MAX",
    "PRIORITY",
    "ROOT",
    "Path",
    "as_integer",
    "format_path",
    "is_canonical",
    "key_problem",
    "order_key",
    "padding_of",
    "parse_path",
    "sorted_map",
    "utf16_order",
]

Path: TypeAlias = tuple[str, ...]

# Firebase's documented limits: keys of 768 bytes, 32 levels.
KEY_BYTES_MAX = 768
DEPTH_MAX = 32
ROOT: Path = ()
PRIORITY = ".priority"

_FORBIDDEN = re.compile(r"[.$#\[\]/\x00-\x1f\x7f]")
_PLAIN = re.compile(r"[^.$#\[\]\x00-\x1f\x7f-\U0010ffff]*\Z")  # all its keys are valid
# The SDKs' expression for integer keys: `^-?(0*)\d{1,10}$`.
_INTEGER = re.compile(r"(-?)0*([0-9]{1,10})\Z")
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")
_SMALL_DIGITS = 10  # numbers of fewer digits fit 32 bits
_LENGTH_MAX = 0xFFFF  # more than any key; texts in the bounds of queries may be this long
_CACHED_CHARS = 256


def parse_path(path: str) -> Path:
    """Split `path` into keys; leading, trailing and repeated slashes are ignored.

    Raises:
        BadPath: a key or the depth breaks a limit.
    """
    if type(path) is str and len(path) <= _CACHED_CHARS:
        return _parse_short(path)
    return _parse(path)


def _parse(path: str) -> Path:
    if not isinstance(path, str):
        raise BadPath(repr(path), f"a path must be a str, not {type(path).__name__}")
    keys = tuple(filter(None, path.split("/")))
    if len(keys) <= DEPTH_MAX and len(path) <= KEY_BYTES_MAX and _PLAIN.match(path):
        return keys
    above = keys[:-1] if keys and keys[-1] == PRIORITY else keys
    for key in above:
        problem = key_problem(key)
        if problem:
            raise BadPath(path, problem)
    if len(above) > DEPTH_MAX:
        raise BadPath(path, f"{len(above)} levels deep; the limit is {DEPTH_MAX}")
    return keys


_parse_short = lru_cache(maxsize=4096)(_parse)


def format_path(keys: Iterable[str]) -> str:
    """Join keys to a path that starts with a slash; `/` for no keys."""
    return "/" + "/".join(keys)


def key_problem(key: str) -> str | None:
    """Return why `key` is not a valid name of a child, or None."""
    if not key:
        return "a key must not be empty"
    found = _FORBIDDEN.search(key)
    if found:
        return (
            f"key {key[:80]!r} holds {found.group()!r}; "
            "keys must not hold . $ # [ ] / or control characters"
        )
    try:
        size = len(key) if key.isascii() else len(key.encode())
    except UnicodeEncodeError:
        return f"key {key[:80]!r} is not valid Unicode (a lone surrogate)"
    if size > KEY_BYTES_MAX:
        return f"key {key[:40]!r}… has {size} bytes; the limit is {KEY_BYTES_MAX}"
    return None


def order_key(key: str) -> tuple[int, int, str]:
    """Return the sort key of a child's name in the order of the Firebase SDKs (`nameCompare`).

    32-bit integers come first, by value and then by length ("7", "07", "007"); all other names come
    after them as text, by UTF-16 units.
    """
    number = as_integer(key) if key[0] <= "9" else None
    if number is None:
        return (1, 0, utf16_order(key))
    if is_canonical(key):
        return (0, number, "")
    length, is_minus_zero = padding_of(key, number)
    return (0, number, chr(length) + "-" * is_minus_zero)


def is_canonical(key: str) -> bool:
    """Whether a key that `as_integer` reads is the shortest text of its number."""
    return len(key) == 1 or not key.startswith(("0", "-0"))


def padding_of(key: str, number: int) -> tuple[int, bool]:
    """Return what distinguishes a non-canonical integer key from other keys of the same value.

    That is its length, and for zero whether it has a minus sign. The SDKs treat "00" and "-0" as one
    key; a tree that holds both needs some order, and sorts "-0" after "00".
    """
    return min(len(key), _LENGTH_MAX), number == 0 and key[0] == "-"


def as_integer(key: str) -> int | None:
    """Return the integer that the Firebase SDKs read `key` as (`tryParseInt`), None for other text.

    Leading zeros are allowed; the value must fit 32 bits.
    """
    if len(key) < _SMALL_DIGITS and key.isdigit() and key.isascii():
        return int(key)
    found = _INTEGER.match(key) if key[0] <= "9" else None
    if found is None:
        return None
    number = int(found[1] + found[2])
    return number if -(2**31) <= number < 2**31 else None


def has_astral(text: str) -> bool:
    """Whether `text` holds a character above U+FFFF: its UTF-16 order is not its UTF-8 order."""
    return not text.isascii() and _ASTRAL.search(text) is not None


def utf16_order(text: str) -> str:
    """Return text whose order by code points is the order of `text` by UTF-16 units."""
    return _ASTRAL.sub(_surrogates, text) if has_astral(text) else text


def _surrogates(found: re.Match[str]) -> str:
    above = ord(found.group()) - 0x10000
    return chr(0xD800 + (above >> 10)) + chr(0xDC00 + (above & 0x3FF))


def sorted_map(children: dict[str, Any]) -> dict[str, Any]:
    """Return `children` in Firebase's order (the same dict if it is already in order)."""
    keys = list(children)
    numeric = min(keys, default="a")[0] <= "9"
    by_name = numeric or has_astral("".join(keys))
    ordered = sorted(keys, key=order_key) if by_name else sorted(keys)
    if ordered == keys:
        return children
    return {key: children[key] for key in ordered}
