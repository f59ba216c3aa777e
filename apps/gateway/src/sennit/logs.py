"""A node's logs: system.log (what happens), peers.log (other nodes), audit.log (who changed what)."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from pathlib import Path

import structlog

from sennit.settings import LoggingSettings
from sennit_core.logs import RedactingFilter

_FILES = {"": "system.log", "sennit.audit": "audit.log", "lake.peers": "peers.log"}


def configure(settings: LoggingSettings, folder: Path) -> None:
    """Send every logger to its rotated file, warnings to the terminal too, tokens redacted."""
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
    )
    for name, file in _FILES.items():
        handler = logging.handlers.RotatingFileHandler(
            folder / file, maxBytes=settings.rotate_bytes, backupCount=settings.rotate_count,
            encoding="utf-8", delay=True,
        )  # fmt: skip
        _attach(name, handler, formatter)
    logging.getLogger("sennit.audit").propagate = False
    logging.getLogger("lake.peers").propagate = False
    logging.getLogger().setLevel(settings.level)
    # Libraries that narrate every request would drown what matters.
    for chatty in ("httpx", "httpcore", "asyncio", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(logging.WARNING)
    console_format = formatter if settings.format == "json" else logging.Formatter("%(levelname)s %(name)s: %(message)s")
    _attach("", console, console_format)


def _attach(name: str, handler: logging.Handler, formatter: logging.Formatter) -> None:
    handler.setFormatter(formatter)
    handler.addFilter(RedactingFilter())
    logging.getLogger(name).addHandler(handler)
