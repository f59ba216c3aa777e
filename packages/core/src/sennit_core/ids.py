"""Identifiers: 26 characters of lower-case base32 that sort by the time they were made.

48 bits of Unix milliseconds, then 80 random bits, most significant first, in Crockford's alphabet
(without i, l, o, u), whose characters are in ASCII order: text order is time order.
"""

from __future__ import annotations

import hashlib
import os
import threading
from weakref import WeakKeyDictionary

from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import UsageError

__all__ = ["ID_LENGTH", "derived_id", "id_time", "is_id", "new_id", "task_key"]

ID_LENGTH = 26
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_RANDOM_BITS = 80
_RANDOM_BYTES = _RANDOM_BITS // 8
_FIRST_CHARACTERS = "01234567"  # 26 characters hold 130 bits, an id has 128

_lock = threading.Lock()
_last: WeakKeyDictionary[Clock, int] = WeakKeyDictionary()


def _forget_parent() -> None:
    """Reset the state in a forked child: counting on from the parent's last id could repeat ids."""
    global _lock  # another thread of the parent may have held it during the fork
    _lock = threading.Lock()
    _last.clear()


os.register_at_fork(after_in_child=_forget_parent)


def new_id(clock: Clock = SYSTEM) -> str:
    """Return a new id that sorts after all ids this process has made with the same `clock`.

    The order holds when the clock has not advanced or was set back: the new id is then the last
    one plus a random step.
    """
    stamp = int(clock.now() * 1000) << _RANDOM_BITS
    octets = os.urandom(_RANDOM_BYTES + 4)
    fresh = stamp | int.from_bytes(octets[:_RANDOM_BYTES], "big")
    step = 1 + int.from_bytes(octets[_RANDOM_BYTES:], "big")
    with _lock:
        last = _last.get(clock, -1)
        value = fresh if fresh >> _RANDOM_BITS > last >> _RANDOM_BITS else last + step
        _last[clock] = value
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)])


def derived_id(base: str, *parts: str) -> str:
    """Return the id that belongs to another id and some texts: always the same one.

    Its time is that of `base`; the rest is a hash of all arguments, so two requests that a client
    repeats get one id, and others never do.

    Args:
        base: An id.
        parts: What else decides the id.
    """
    digest = hashlib.sha256("\0".join((base, *parts)).encode()).digest()
    value = int.from_bytes(digest[:_RANDOM_BYTES], "big")
    shifts = range(_RANDOM_BITS - 10, -1, -10)
    return base[: ID_LENGTH - _RANDOM_BITS // 5] + "".join(
        [_PAIRS[(value >> shift) & 1023] for shift in shifts]
    )


def is_id(text: object) -> bool:
    """Return whether `text` has the form of an id."""
    return (
        isinstance(text, str)
        and len(text) == ID_LENGTH
        and text[0] in _FIRST_CHARACTERS
        and all(character in _ALPHABET for character in text)
    )


def id_time(text: str) -> float:
    """Return the Unix time in seconds, to the millisecond, at which an id was made.

    Raises:
        UsageError: `text` is not an id.
    """
    if not is_id(text):
        raise UsageError(f"not an id: {text!r}", hint="ids are 26 characters of a-z and 0-9")
    value = 0
    for character in text:
        value = value << 5 | _ALPHABET.index(character)
    return (value >> _RANDOM_BITS) / 1000


def task_key(index: int) -> str:
    """Return the key of a job's task number `index`: `t000000`, `t000001`, … in text order."""
    if not 0 <= index < 1_000_000:
        raise UsageError(f"a job has at most 1,000,000 tasks, asked for number {index}")
    return f"t{index:06d}"
