"""Read the headers of tus 1.0 (https://tus.io/protocols/resumable-upload, version 1.0.0)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sennit_core.errors import BadInput, UsageError

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = [
    "ALGORITHMS",
    "EXTENSIONS",
    "VERSION",
    "Checksum",
    "parse_checksum",
    "parse_concat",
    "parse_metadata",
    "parse_number",
]

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination,checksum,expiration,concatenation"
ALGORITHMS: Mapping[str, Callable[[], _Hash]] = {
    # tuspy knows only SHA-1. It detects accidents here; nothing is trusted because of it.
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
}
SOURCES_MAX = 1000
_METADATA_BYTES_MAX = 8192
_NUMBER_DIGITS_MAX = 18


@dataclass(frozen=True, slots=True)
class Checksum:
    """The announced checksum of a request's body.

    Args:
        algorithm: Of `ALGORITHMS`.
        digest: The expected digest.
    """

    algorithm: str
    digest: bytes

    def new_hash(self) -> _Hash:
        """Return a hash of this algorithm."""
        return ALGORITHMS[self.algorithm]()


def parse_number(headers: Mapping[str, str], name: str) -> int:
    """Return a header that is a whole number, such as Upload-Offset.

    Raises:
        UsageError: It is missing, or something else.
    """
    text = headers.get(name, "")
    # `isdecimal` alone accepts digits of other scripts.
    if not (text.isascii() and text.isdecimal() and len(text) <= _NUMBER_DIGITS_MAX):
        found = f"is {text[:40]!r}" if text else "is missing"
        raise UsageError(f"the header {name} {found}", hint="it is a whole number of bytes")
    return int(text)


def parse_metadata(text: str) -> dict[str, str]:
    """Return the pairs of Upload-Metadata: keys, each with a value in Base64 or without one.

    Raises:
        UsageError: It is malformed, or longer than 8 KiB.
    """
    if len(text) > _METADATA_BYTES_MAX:
        raise UsageError(
            f"Upload-Metadata has {len(text):,} bytes; {_METADATA_BYTES_MAX:,} are allowed"
        )
    found: dict[str, str] = {}
    for pair in text.split(",") if text.strip() else ():
        key, _, value = pair.strip().partition(" ")
        if not key or key in found:
            raise UsageError(f"Upload-Metadata has a key that is empty or there twice: {key!r}")
        try:
            found[key] = base64.b64decode(value.strip(), validate=True).decode()
        except ValueError:  # of Base64, which is ASCII, or of UTF-8
            raise UsageError(
                f"the value of {key[:80]!r} in Upload-Metadata is not Base64 of UTF-8"
            ) from None
    return found


def parse_checksum(text: str | None) -> Checksum | None:
    """Return the checksum of Upload-Checksum; None without that header.

    Raises:
        UsageError: The algorithm is unknown, or the digest is none.
    """
    if text is None:
        return None
    algorithm, _, encoded = text.strip().partition(" ")
    if algorithm not in ALGORITHMS:
        raise UsageError(
            f"the checksum algorithm {algorithm[:40]!r} is unknown",
            hint=f"use {' or '.join(ALGORITHMS)}",
        )
    try:
        digest = base64.b64decode(encoded.strip(), validate=True)
    except ValueError:
        digest = b""
    if len(digest) != ALGORITHMS[algorithm]().digest_size:
        raise UsageError(f"Upload-Checksum has no {algorithm} digest in Base64")
    return Checksum(algorithm, digest)


def parse_concat(text: str | None) -> tuple[bool, tuple[str, ...]]:
    """Return whether Upload-Concat announces a partial upload, and the ids of the sources of a final one.

    Raises:
        UsageError: It is malformed.
    """
    if text is None:
        return False, ()
    if text.strip() == "partial":
        return True, ()
    kind, _, places = text.partition(";")
    # Each place is a path or a URL of this server, whose last segment is the id.
    ids = tuple(place.rstrip("/").rpartition("/")[2] for place in places.split())
    if kind.strip() != "final" or not ids:
        raise UsageError(
            f"Upload-Concat is {text[:80]!r}", hint='write "partial" or "final;/tus/ID /tus/ID"'
        )
    if len(ids) > SOURCES_MAX:
        raise UsageError(f"Upload-Concat names {len(ids):,} uploads; {SOURCES_MAX:,} are allowed")
    return False, ids


class ChecksumMismatch(BadInput):
    """The bytes of a request do not have the announced checksum; they were dropped."""
