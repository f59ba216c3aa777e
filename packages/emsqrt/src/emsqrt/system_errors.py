"""Convert failed system calls into errors for the caller, by their errno."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from sennit_core.errors import (
    CapacityError,
    Denied,
    InternalError,
    MemoryCapExceeded,
    NotFound,
    SennitError,
    StorageFull,
    Unavailable,
    UsageError,
)

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FILES = frozenset({errno.EMFILE, errno.ENFILE})
_WRONG = {
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "a part of its path is no folder",
    errno.EEXIST: "a part of its path is no folder",
    errno.ENAMETOOLONG: "the name is too long for its file system",
    errno.ELOOP: "its symbolic links lead round in a circle",
    errno.ENXIO: "it is a socket or a pipe without a reader",
    errno.EBADF: "it is closed, or was opened the other way round",
}
_NAME_CHARACTERS = 200
_ALLOCATION = ("bad_alloc", "malloc of size", "realloc of size", "Cannot allocate memory")
"""Texts in Arrow's messages where an allocation failed."""


def system_error(error: OSError, what: str = "", doing: str = "using") -> SennitError:
    """Return the error for a failed system call.

    Args:
        error: as it was raised.
        what: the file or stream; the one that the error names when empty.
        doing: the attempted action: "reading", "writing".
    """
    name = _shortened(what or os.fsdecode(error.filename or "") or "a file")
    said = error.strerror or str(error) or type(error).__name__
    if error.errno in _FULL:
        unnamed = "" if what or error.filename else f"no space is left: {said}"
        hint = "free some room, or choose another place"
        return StorageFull(message=unnamed, path=name, hint=hint)
    if error.errno in _FORBIDDEN:
        return Denied(f"{doing} {name} ({said})", hint="its owner, mode or mount forbids it")
    if error.errno in _FILES:
        return CapacityError(
            f"{doing} {name}: this process may open no more files",
            hint="raise the limit, such as by ulimit -n",
        )
    if error.errno == errno.ENOMEM:
        return CapacityError(
            f"{doing} {name}: the system refused this process more memory",
            hint="lower the cap, or raise the limits of the process (ulimit -v, -d)",
        )
    if error.errno == errno.ENOENT:
        return NotFound("file or folder", name)
    if error.errno in _WRONG:
        return UsageError(f"{doing} {name}: {_WRONG[error.errno]}")
    return Unavailable(name, message=f"{doing} {name} failed: {said}")


@contextmanager
def translating_os_errors(what: str, doing: str) -> Iterator[None]:
    """Convert failed system calls inside a `with` into errors that name a file or stream."""
    try:
        yield
    except OSError as error:
        if isinstance(error, SennitError):
            raise
        raise system_error(error, what, doing) from error


def refuse_memory(error: BaseException) -> None:
    """Raise MemoryError if a library's error reports a failed allocation.

    Arrow's readers catch `std::bad_alloc` among other exceptions, and raise an OSError or an
    ArrowInvalid of which only the text identifies it.
    """
    said = str(error)
    if getattr(error, "errno", None) == errno.ENOMEM or any(word in said for word in _ALLOCATION):
        raise MemoryError(said) from error


def any_error(error: BaseException, what: str, cap_bytes: int = 0) -> SennitError:
    """Return the error for the caller when `what` failed; `cap_bytes` is 0 without a cap."""
    if isinstance(error, SennitError):
        return error
    if isinstance(error, MemoryError) and not cap_bytes:
        return system_error(OSError(errno.ENOMEM, ""), what, "planning")
    if isinstance(error, MemoryError):
        return MemoryCapExceeded(
            cap_bytes=cap_bytes,
            what=f"{what} ({error})" if str(error) else what,
            hint="use a larger cap, or run less at once",
        )
    if isinstance(error, RecursionError):
        return UsageError(f"{what} is nested too deeply", hint="nest less deeply")
    if isinstance(error, OSError) and error.errno is not None:
        return system_error(error)
    return InternalError(f"{what}: {type(error).__name__}: {error}")


def _shortened(name: str) -> str:
    if len(name) <= _NAME_CHARACTERS:
        return name
    return f"{name[:_NAME_CHARACTERS]}…"
