"""`python -m elytra.cli` is the command `elytra`."""

from __future__ import annotations

from elytra.cli import entry

entry()
