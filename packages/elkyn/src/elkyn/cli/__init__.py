"""`elkyn`: the command line, one module a group of verbs.

Layering: `command` < `serving`, `data` and other groups (each with `register(subparsers)`) < `program`.
"""

from elkyn.cli.program import main

__all__ = ["main"]
