"""The verbs of the `platform` command, as Typer knows them."""

from __future__ import annotations

import os

# Rich help would triple the time to the first line; progress bars load Rich when they are drawn.
os.environ.setdefault("TYPER_USE_RICH", "0")

import typer

from sennit.cli import data_verbs, node_verbs, verify_verb

__all__ = ["app"]

app = typer.Typer(
    name="platform",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Upload, query and pipe data through one node, and watch every job live.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
node_verbs.register(app)
data_verbs.register(app)
verify_verb.register(app)
