"""Logging for libraries and programs, with secrets redacted.

Libraries call `get_logger(__name__)` and add no handlers. A program calls `configure_logging` once.
Redacted are Bearer and Basic credentials, `token=` in a query, cookies, and values named token,
password, secret or authorization in JSON or keyword form.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TextIO

from sennit_core.errors import UsageError

__all__ = ["JsonFormatter", "RedactingFilter", "configure_logging", "get_logger", "redact"]

_MASK = "***"
_QUOTED = r"""b?"[^"\r\n]*"|b?'[^'\r\n]*'"""
_PATTERNS: tuple[re.Pattern[str], ...] = (
    # A cookie header's whole value, in header form or as a quoted member.
    re.compile(rf"""(?i)(\b(?:set-)?cookie["']?\s*[:=,]\s*)(?:{_QUOTED}|[^\r\n"']+)"""),
    # Authorization with any scheme, in header form, as a member, or as a pair of bytes.
    re.compile(rf"""(?i)(\bauthorization["']?\s*[:=,]\s*)(?:{_QUOTED}|(?:\w+[ ]+)?[^\s"',;]+)"""),
    re.compile(r"(?i)(\bbearer\s+)[\w.~+/=-]{8,}"),
    re.compile(r"(?i)([?&;](?:access_|admin_)?(?:token|auth)=)[^&#\s\"']*"),
    re.compile(
        rf"""(?i)((?:token|password|secret)["']?\s*[:=]\s*)(?:{_QUOTED}|[^\s,;&"'}}\])]+)"""
    ),
)
# Each pattern needs one of these words, which most texts have none of.
_SIGNS = re.compile("cookie|auth|bearer|token|password|secret", re.IGNORECASE)
_ENCODER = json.JSONEncoder(ensure_ascii=False)


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module; pass `__name__`."""
    return logging.getLogger(name)


def redact(text: str) -> str:
    """Return `text` with every credential that can be recognised replaced by `***`."""
    if _SIGNS.search(text) is None:
        return text
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\1{_MASK}", text)
    return text


class RedactingFilter(logging.Filter):
    """Redacts secrets in each record: message, arguments and traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place; it is never dropped."""
        record.msg = redact(_message_of(record))
        record.args = None
        fields = getattr(record, "fields", None)
        if fields:
            record.fields = {
                name: redact(value) if isinstance(value, str) else value
                for name, value in fields.items()
            }
        if record.exc_info and record.exc_text is None:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (ISO 8601, UTC), level, logger, message, and the traceback.

    Members of the attribute `fields` of a record, a dict, are members of the object too.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        line: dict[str, Any] = {
            "time": _iso_utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_text is None:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["traceback"] = record.exc_text
        return _ENCODER.encode(line)


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging named it
        return _iso_utc(record.created)


def configure_logging(
    format: Literal["text", "json"] = "text",  # noqa: A002 - the word of the setting
    level: str | int = "INFO",
    *,
    stream: TextIO | None = None,
    file: str | PathLike[str] | None = None,
) -> logging.Handler:
    """Send all logging to one redacted handler, replacing the one set up here before.

    Args:
        format: `text` for people, `json` for machines.
        level: the least level that is kept, by name or number.
        stream: where to write; standard error by default, unless `file` is set.
        file: a file to append to, made with its folder when missing.

    Returns:
        The handler; its owner closes it after `logging.getLogger().removeHandler(handler)`.

    Raises:
        UsageError: an unknown format or level.
    """
    if format not in ("text", "json"):
        raise UsageError(f"unknown log format {format!r}", hint='use "text" or "json"')
    number = _level_number(level)
    handler = _open_handler(stream, file)
    handler.setFormatter(JsonFormatter() if format == "json" else _TextFormatter())
    handler.addFilter(RedactingFilter())
    handler.set_name("sennit")
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.get_name() == "sennit"]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(number)
    return handler


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - a wrong format must cost the line's beauty, not the caller
        return f"{record.msg} {record.args!r}"


def _level_number(level: str | int) -> int:
    if isinstance(level, int):
        return level
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise UsageError(f"unknown log level {level!r}", hint="use debug, info, warning or error")
    return number


def _open_handler(stream: TextIO | None, file: str | PathLike[str] | None) -> logging.Handler:
    if file is None:
        return logging.StreamHandler(stream or sys.stderr)
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    return logging.FileHandler(path, encoding="utf-8")


def _iso_utc(seconds: float) -> str:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{stamp}.{int(seconds * 1000) % 1000:03d}Z"
