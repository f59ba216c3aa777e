"""The Typer application of the `platform` command."""

from __future__ import annotations

import os

# Rich help would triple the startup time; progress bars import Rich when they are drawn.
os.environ.setdefault("TYPER_USE_RICH", "0")

import typer

from sennit.cli import (
    bundle_verbs,
    cleanup_verb,
    data_verbs,
    maintenance_verbs,
    net_verbs,
    node_verbs,
    policy_verb,
    queries_verb,
    quota_verbs,
    sample_verb,
    share_verbs,
    verify_verb,
    workers_verbs,
)

__all__ = ["app"]

app = typer.Typer(
    name="platform",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Run a Sennit node: upload files, query them with SQL, and run pipelines as jobs.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
node_verbs.register(app)
data_verbs.register(app)
verify_verb.register(app)
policy_verb.register(app)
queries_verb.register(app)
maintenance_verbs.register(app)
cleanup_verb.register(app)
quota_verbs.register(app)
net_verbs.register(app)
share_verbs.register(app)
bundle_verbs.register(app)
sample_verb.register(app)
workers_verbs.register(app)
