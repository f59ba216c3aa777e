"""`elytra`: run and explain pipelines on this machine, without a node.

Layering: files (a file as a pipeline) <- program (verbs, errors, exit status) <- this module, which
explains how to install the extra `cli` where it is missing.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["entry"]


def entry() -> None:
    """The console script."""
    if find_spec("typer") is None:
        from sennit_core.extras import install_hint

        sys.exit(f"error: the command elytra needs typer\n{install_hint('sennit-elytra', 'typer')}")
    from elytra.cli.program import app

    app(prog_name="elytra")
