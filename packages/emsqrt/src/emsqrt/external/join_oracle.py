"""For tests: rows of joins made without the kernel, and the expected result of joining them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import get_args

from emsqrt.external.join_output import ABSENT, HashJoinKind

KIB = 1 << 10
KINDS: tuple[HashJoinKind, ...] = get_args(HashJoinKind)
Row = tuple[bytes, bytes]
"""Key, empty for NULL, and payload."""
Joined = tuple[bytes | None, bytes | None]


def block(rows: Iterable[Row]) -> bytes:
    """Return rows as the kernel has them."""
    return b"".join(
        struct.pack("<II", 8 + len(key) + len(payload), len(key)) + key + payload
        for key, payload in rows
    )


def blocks(rows: list[Row], count: int) -> Iterator[bytes]:
    """Yield blocks of `count` rows."""
    for start in range(0, len(rows), count):
        yield block(rows[start : start + count])


def read(joined: bytes | memoryview) -> Iterator[Joined]:
    """Yield (left payload, right payload) of joined rows, None where there is no row."""
    at = 0
    while at < len(joined):
        row_bytes, key_bytes = struct.unpack_from("<II", joined, at)
        head = at + 8 + key_bytes
        left, right = struct.unpack_from("<II", joined, head)
        split = head + 8 + (0 if left == ABSENT else left)
        one = None if left == ABSENT else bytes(joined[head + 8 : split])
        other = None if right == ABSENT else bytes(joined[split : at + row_bytes])
        yield one, other
        at += row_bytes


def naive(how: HashJoinKind, left: list[Row], right: list[Row]) -> list[Joined]:
    """Join with a dictionary; the output is in the order that `ExternalJoin` documents."""
    found: list[Joined] = []
    by_key: dict[bytes, list[int]] = {}
    for number, (key, _) in enumerate(right):
        by_key.setdefault(key, []).append(number)
    matched: set[int] = set()
    for key, payload in left:
        matches = by_key.get(key, []) if key else []
        matched.update(matches)
        if how == "semi":
            found += [(payload, None)] if matches else []
        elif how == "anti":
            found += [] if matches else [(payload, None)]
        else:
            found += [(payload, right[number][1]) for number in matches]
            found += [(payload, None)] if not matches and how in ("left", "full") else []
    if how in ("right", "full"):
        found += [(None, row[1]) for number, row in enumerate(right) if number not in matched]
    return found


def numbered(keys: Iterable[bytes], side: str, width: int = 0) -> list[Row]:
    """Return rows with these keys whose payloads are all different, padded to `width` bytes."""
    return [(key, f"{side}{n}".encode().ljust(width, b".")) for n, key in enumerate(keys)]


def key(number: int) -> bytes:
    """Return a key that orders as the number does."""
    return b"\x01" + number.to_bytes(8, "big")
