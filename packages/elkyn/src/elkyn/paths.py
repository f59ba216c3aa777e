"""Paths into the tree: `/a/b` in text, a tuple of keys inside.

Limits and characters are those of the Firebase Realtime Database: a key is 1 to 768 bytes of UTF-8
without `. $ # [ ] /` and control characters, and nothing lies deeper than 32 levels. The last key may
be `.priority`: the priority of what is above it.
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
    "format_path",
    "key_problem",
    "order_key",
    "parse_path",
]

Path: TypeAlias = tuple[str, ...]

KEY_BYTES_MAX = 768
DEPTH_MAX = 32
ROOT: Path = ()
PRIORITY = ".priority"

_FORBIDDEN = re.compile(r"[.$#\[\]/\x00-\x1f\x7f]")
_PLAIN = re.compile(r"[^.$#\[\]\x00-\x1f\x7f-\U0010ffff]*\Z")  # no key in it is a problem
_INTEGER = re.compile(r"(?:0|-?[1-9][0-9]{0,9})\Z")
_CACHED_CHARS = 256


def parse_path(path: str) -> Path:
    """Split `path` into keys; slashes at the ends and doubled ones mean nothing.

    Raises:
        BadPath: a key or the depth breaks a limit.
    """
    if type(path) is str and len(path) <= _CACHED_CHARS:
        return _parse_short(path)
    return _parse(path)


def _parse(path: str) -> Path:
    if not isinstance(path, str):
        raise BadPath(repr(path), f"a path is a str, not {type(path).__name__}")
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
    """Join keys to a path that starts with a slash; no keys give `/`."""
    return "/" + "/".join(keys)


def key_problem(key: str) -> str | None:
    """Say what forbids `key` as the name of a child, or None."""
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
    """Sort key of Firebase's order: canonical 32-bit integers by number, then text by UTF-8."""
    number = as_integer(key)
    return (1, 0, key) if number is None else (0, number, "")


def as_integer(key: str) -> int | None:
    """Return the number that `key` is the canonical text of, when it fits 32 bits."""
    if key[0] > "9" or not _INTEGER.match(key):
        return None
    number = int(key)
    return number if -(2**31) <= number < 2**31 else None


def sorted_map(children: dict[str, Any]) -> dict[str, Any]:
    """Return `children` in Firebase's order (the same dict when it is in order already)."""
    keys = list(children)
    numeric = min(keys, default="a")[0] <= "9"
    ordered = sorted(keys, key=order_key) if numeric else sorted(keys)
    if ordered == keys:
        return children
    return {key: children[key] for key in ordered}
