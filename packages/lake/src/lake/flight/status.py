"""The gRPC status of an error, and the text that a client shows."""

from __future__ import annotations

import grpc

from sennit_core import errors
from sennit_core.errors import SennitError

__all__ = ["status_of", "text_of"]

_TEXT_MAX = 4000
"""A status is sent in headers, which clients limit to 8 KiB; letters may be encoded in three bytes."""
_CODE = grpc.StatusCode
# Looked up along the class hierarchy, so a subclass needs an entry only if its status differs.
_STATUS_OF_CLASS: dict[type[SennitError], grpc.StatusCode] = {
    errors.UsageError: _CODE.INVALID_ARGUMENT,
    errors.Unsupported: _CODE.UNIMPLEMENTED,
    errors.Unauthenticated: _CODE.UNAUTHENTICATED,
    errors.Denied: _CODE.PERMISSION_DENIED,
    errors.NotFound: _CODE.NOT_FOUND,
    errors.Conflict: _CODE.ALREADY_EXISTS,
    errors.Cancelled: _CODE.CANCELLED,
    errors.Closed: _CODE.UNAVAILABLE,
    errors.CapacityError: _CODE.RESOURCE_EXHAUSTED,
    errors.Busy: _CODE.RESOURCE_EXHAUSTED,
    errors.Unavailable: _CODE.UNAVAILABLE,
    errors.DeadlineExceeded: _CODE.DEADLINE_EXCEEDED,
    errors.Corrupt: _CODE.DATA_LOSS,
}


def status_of(error: SennitError) -> grpc.StatusCode:
    """Return the status of an error: of its nearest class in the table, else INTERNAL."""
    found = (_STATUS_OF_CLASS[c] for c in type(error).__mro__ if c in _STATUS_OF_CLASS)
    return next(found, _CODE.INTERNAL)


def text_of(error: SennitError) -> str:
    """Return the error and its hint."""
    text = f"{error}; {error.hint}" if error.hint else str(error)
    if len(text.encode(errors="replace")) > _TEXT_MAX:
        text = text.encode(errors="replace")[:_TEXT_MAX].decode(errors="ignore") + "…"
    return text.encode(errors="replace").decode()
