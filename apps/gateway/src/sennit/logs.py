"""A node's logs: system.log (what happens), peers.log (other nodes), audit.log (who changed what)."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path

from sennit.settings import LoggingSettings
from sennit_core.logs import JsonFormatter, RedactingFilter, configure_logging

_FILES = {"": "system.log", "sennit.audit": "audit.log", "lake.peers": "peers.log"}
# Libraries that narrate every request would drown what matters.
_CHATTY = ("httpx", "httpcore", "asyncio", "uvicorn.error")


def configure(settings: LoggingSettings, folder: Path) -> None:
    """Write JSON lines to rotated files, and warnings to the terminal; tokens are redacted.

    Args:
        settings: level and rotation of the files, format of the terminal.
        folder: where the files are, such as `<data>/logs`.
    """
    console = configure_logging(settings.format, settings.level)
    console.setLevel(logging.WARNING)
    for name, file in _FILES.items():
        handler = logging.handlers.RotatingFileHandler(
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
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
