"""`elkyn`: the command line, one module for each group of commands.

Layering: `command` < `serving`, `data` and other groups (each with `register(subparsers)`) < `program`.
"""

from elkyn.cli.program import main

__all__ = ["main"]
