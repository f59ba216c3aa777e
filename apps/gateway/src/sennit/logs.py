"""A node's logs: system.log (general), peers.log (other nodes), audit.log (changes by user)."""

from __future__ import annotations

import errno
import logging
import logging.handlers
import os
import sys
from io import TextIOWrapper
from pathlib import Path

from sennit.settings import LoggingSettings
from sennit_core.logs import JsonFormatter, RedactingFilter, configure_logging

_FILES = {"": "system.log", "sennit.audit": "audit.log", "lake.peers": "peers.log"}
# Libraries that log every request would hide the important lines.
_CHATTY = ("httpx", "httpcore", "asyncio", "uvicorn.error", "websockets")


def log_folder(settings: LoggingSettings, data: Path) -> Path:
    """Return the folder of a node's logs."""
    return settings.folder or data / "logs"


def configure(settings: LoggingSettings, folder: Path) -> None:
    """Write JSON lines to rotated files, and warnings to the terminal; tokens are redacted.

    Args:
        settings: level and rotation of the files, format of the terminal.
        folder: where the files are, such as `<data>/logs`.
    """
    console = configure_logging(settings.format, settings.level)
    console.setLevel(logging.WARNING)
    for name, file in _FILES.items():
        handler = _FileHandler(
            folder / file,
            maxBytes=settings.rotate_bytes,
            backupCount=settings.rotate_count,
            encoding="utf-8",
            delay=True,
        )
        handler.setFormatter(JsonFormatter())
        handler.addFilter(RedactingFilter())
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.propagate = not name
    # Whatever the level of the other logs: an audit log with gaps is none.
    logging.getLogger("sennit.audit").setLevel(logging.INFO)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)


class _FileHandler(logging.handlers.RotatingFileHandler):
    """A rotated file of its owner; on a full disk a line is dropped without a traceback.

    Each line is written to the file at once, so a process that is killed loses none.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; the base class formats it twice, and looks at the file three times."""
        try:
            line = self.format(record) + self.terminator
            if self.stream is None:
                self.stream = self._open()
            size = os.fstat(self.stream.fileno()).st_size
            if size and 0 < self.maxBytes <= size + len(line):
                self.doRollover()
                self.stream = self.stream or self._open()
            self.stream.write(line)
            self.flush()
        except Exception:  # noqa: BLE001 - as the base class does: no log must fail what it logs
            self.handleError(record)

    def _open(self) -> TextIOWrapper:
        file = open(  # noqa: SIM115 - the handler closes it
            self.baseFilename,
            self.mode,
            encoding=self.encoding,
            opener=lambda path, flags: os.open(path, flags, 0o600),
        )
        assert isinstance(file, TextIOWrapper), "opened as text"
        return file

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging named it
        error = sys.exc_info()[1]
        if not (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
            super().handleError(record)
