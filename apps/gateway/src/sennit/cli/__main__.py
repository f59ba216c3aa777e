"""`python -m sennit.cli` is the `platform` command."""

from __future__ import annotations

from sennit.cli import main

main()
