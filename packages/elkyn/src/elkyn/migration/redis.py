"""Redis: keys with `:` are paths; strings, hashes, lists, sets and sorted sets are values.

Speaks RESP2 (redis.io, "Redis serialization protocol specification") over one socket.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from typing import Any, Self
from urllib.parse import SplitResult, unquote, urlsplit

from elkyn.migration.keys import escape_key, unescape_key
from sennit_core.errors import Unavailable, UsageError

__all__ = ["Redis", "read_keys", "write_keys"]

_SCAN_COUNT = 500
_BATCH = 500


class Redis:
    """A connection to one database of a server.

    Args:
        url: `redis://[user:password@]host[:port][/number]`.

    Raises:
        Unavailable: the server cannot be reached.
        UsageError: the server returns an error, or the URL is invalid.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "redis" or not parts.hostname:
            raise UsageError(
                f"{url!r} is not the URL of a Redis server", hint="redis://127.0.0.1:6379/0"
            )
        try:
            self._socket = socket.create_connection((parts.hostname, parts.port or 6379), 30)
        except OSError as error:
            place = f"{parts.hostname}:{parts.port or 6379}"
            raise Unavailable(
                f"Redis at {place}", message=f"Redis at {place} cannot be reached: {error}"
            ) from None
        self._stream = self._socket.makefile("rb")
        try:
            self._enter(parts)
        except BaseException:
            self.close()
            raise

    def _enter(self, parts: SplitResult) -> None:
        if parts.password:
            user = [unquote(parts.username)] if parts.username else []
            self.ask("AUTH", *user, unquote(parts.password))
        if parts.path.strip("/"):
            self.ask("SELECT", parts.path.strip("/"))

    def ask(self, *words: str | bytes) -> Any:
        """Send one command and return its reply."""
        return self.ask_all([words])[0]

    def ask_all(self, commands: Iterable[tuple[str | bytes, ...]]) -> list[Any]:
        """Send several commands at once and return their replies."""
        sent = [_encode(words) for words in commands]
        self._socket.sendall(b"".join(sent))
        answers = [self._read() for _command in sent]
        for answer in answers:
            if isinstance(answer, UsageError):
                raise answer
        return answers

    def _read(self) -> Any:
        line = self._stream.readline()
        if not line.endswith(b"\r\n"):
            raise Unavailable("Redis", message="Redis closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            return UsageError(f"Redis: {rest.decode(errors='replace')}")
        if kind == b":":
            return int(rest)
        size = int(rest)
        if size < 0:
            return None
        if kind == b"$":
            return self._stream.read(size + 2)[:-2]
        return [self._read() for _index in range(size)]

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _encode(words: tuple[str | bytes, ...]) -> bytes:
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word if isinstance(word, bytes) else word.encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def read_keys(redis: Redis) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value with its path.

    Numbers in strings and hashes stay text, because Redis stores them as text; members of a set
    become keys with the value true, those of a sorted set keys with their score.
    """
    cursor, seen = b"0", set[bytes]()
    while True:
        cursor, keys = redis.ask("SCAN", cursor, "COUNT", str(_SCAN_COUNT))
        fresh = [key for key in keys if key not in seen]
        seen.update(fresh)
        kinds = redis.ask_all([("TYPE", key) for key in fresh])
        known = [(key, kind) for key, kind in zip(fresh, kinds, strict=True) if kind in _READ]
        values = redis.ask_all([_command(key, kind) for key, kind in known])
        for (key, kind), value in zip(known, values, strict=True):
            yield _path(key), _SHOWN[kind](value)
        if cursor == b"0":
            return


_READ: dict[bytes, tuple[str, tuple[str, ...]]] = {
    b"string": ("GET", ()),
    b"hash": ("HGETALL", ()),
    b"list": ("LRANGE", ("0", "-1")),
    b"set": ("SMEMBERS", ()),
    b"zset": ("ZRANGE", ("0", "-1", "WITHSCORES")),
}


def _command(key: bytes, kind: bytes) -> tuple[str | bytes, ...]:
    verb, rest = _READ[kind]
    return (verb, key, *rest)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _pairs(data: list[bytes]) -> dict[str, str]:
    return {escape_key(_text(data[at])): _text(data[at + 1]) for at in range(0, len(data), 2)}


def _scores(data: list[bytes]) -> dict[str, float]:
    return {key: float(score) for key, score in _pairs(data).items()}


_SHOWN: dict[bytes, Any] = {
    b"string": _text,
    b"hash": _pairs,
    b"list": lambda data: list(map(_text, data)),
    b"set": lambda data: {escape_key(_text(member)): True for member in data},
    b"zset": _scores,
}


def _path(key: bytes) -> tuple[str, ...]:
    return tuple(escape_key(part) for part in _text(key).split(":"))


def write_keys(redis: Redis, leaves: Iterable[tuple[tuple[str, ...], Any]]) -> int:
    """Write every leaf as a string under its path joined by `:`; returns how many."""
    count = 0
    batch: list[tuple[str | bytes, ...]] = []
    for path, value in leaves:
        text = value if isinstance(value, str) else str(value).lower()
        batch.append(("SET", ":".join(map(unescape_key, path)), text))
        count += 1
        if len(batch) == _BATCH:
            redis.ask_all(batch)
            batch.clear()
    redis.ask_all(batch)
    return count
