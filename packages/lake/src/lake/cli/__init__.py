"""The `lake` command: work with the datasets of a folder, without a node.

A verb is a function with its arguments declared above it (`lake.cli.verb`), in the module of its
group. Layering: verb (declaration, opening the lake) and output (tables, JSON) below the groups
below program (the parser, errors and the exit status).
"""

from lake.cli.program import main

__all__ = ["main"]
