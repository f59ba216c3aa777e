"""Redis: keys with `:` are paths; strings, hashes, lists, sets and sorted sets are values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from elkyn.migration.keys import escape_key, unescape_key
from sennit_core.errors import Unavailable, Unsupported, UsageError
from sennit_core.extras import install_hint

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["connect", "read_keys", "write_keys"]

_TIMEOUT_SECONDS = 30
_SCAN_COUNT = 500
_BATCH = 500


@contextmanager
def connect(url: str) -> Iterator[Redis]:
    """Connect to one database of a server, and close the connection at the end.

    Args:
        url: `redis://[user:password@]host[:port][/number]`, or `rediss://` for TLS.

    Raises:
        Unavailable: the server cannot be reached.
        Unsupported: redis-py is not installed.
        UsageError: the server returns an error, or the URL is invalid.
    """
    try:
        import redis
    except ImportError:
        raise Unsupported(
            "Redis needs redis-py", hint=install_hint("sennit-elkyn", "redis")
        ) from None
    try:
        client = redis.Redis.from_url(
            url, socket_connect_timeout=_TIMEOUT_SECONDS, socket_timeout=_TIMEOUT_SECONDS
        )
    except ValueError as error:
        raise UsageError(f"{url!r}: {error}", hint="redis://127.0.0.1:6379/0") from None
    try:
        with client:
            yield client
    except redis.AuthenticationError as error:  # a ConnectionError to redis-py
        raise UsageError(f"Redis: {error}") from None
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise Unavailable("Redis", message=f"Redis cannot be reached: {error}") from None
    except redis.RedisError as error:
        raise UsageError(f"Redis: {error}") from None


def read_keys(redis: Redis) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value with its path.

    Numbers in strings and hashes stay text, because Redis stores them as text; members of a set
    become keys with the value true, those of a sorted set keys with their score.
    """
    seen = set[bytes]()
    # SCAN may return a key more than once.
    keys = (key for key in redis.scan_iter(count=_SCAN_COUNT) if key not in seen)
    for some in _batches(keys):
        seen.update(some)
        reads = redis.pipeline(transaction=False)
        for key in some:
            reads.type(key)
        known = [
            (key, _KINDS[kind])
            for key, kind in zip(some, reads.execute(), strict=True)
            if kind in _KINDS
        ]
        for key, kind in known:
            kind.read(reads, key)
        for (key, kind), value in zip(known, reads.execute(), strict=True):
            yield _path(key), kind.convert(value)


def write_keys(redis: Redis, leaves: Iterable[tuple[tuple[str, ...], Any]]) -> int:
    """Write every leaf as a string under its path joined by `:`; return how many."""
    count = 0
    for some in _batches(leaves):
        writes = redis.pipeline(transaction=False)
        for path, value in some:
            text = value if isinstance(value, str) else str(value).lower()
            writes.set(":".join(map(unescape_key, path)), text)
        count += len(writes.execute())
    return count


def _batches(values: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(values)
    while some := list(islice(iterator, _BATCH)):
        yield some


class _Kind(NamedTuple):
    """How the values of one Redis type are read and what they become."""

    read: Callable[[Any, bytes], Any]
    convert: Callable[[Any], Any]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


_KINDS = {
    b"string": _Kind(lambda reads, key: reads.get(key), _text),
    b"hash": _Kind(
        lambda reads, key: reads.hgetall(key),
        lambda fields: {escape_key(_text(name)): _text(fields[name]) for name in fields},
    ),
    b"list": _Kind(
        lambda reads, key: reads.lrange(key, 0, -1), lambda values: list(map(_text, values))
    ),
    b"set": _Kind(
        lambda reads, key: reads.smembers(key),
        lambda members: {escape_key(_text(member)): True for member in members},
    ),
    b"zset": _Kind(
        lambda reads, key: reads.zrange(key, 0, -1, withscores=True),
        lambda members: {escape_key(_text(member)): score for member, score in members},
    ),
}


def _path(key: bytes) -> tuple[str, ...]:
    return tuple(escape_key(part) for part in _text(key).split(":"))
