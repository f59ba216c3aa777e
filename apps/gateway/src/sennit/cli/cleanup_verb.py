"""The verb cleanup: datasets that nobody uses, and the trash that they can be restored from."""

from __future__ import annotations

from typing import Annotated

import typer

from sennit.cli.data_verbs import Url
from sennit.cli.maintenance_verbs import when
from sennit.cli.node_verbs import Data, Json

_ACTIONS = ("run", "trash", "restore", "keep", "release")


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command()(cleanup)


def cleanup(
    action: Annotated[
        str | None,
        typer.Argument(help="run, trash, restore, keep or release.", show_default=False),
    ] = None,
    dataset: Annotated[
        str | None, typer.Argument(help="Its name or id.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Another name for a restored dataset.")
    ] = None,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List what the next cleanup would remove, run it, or restore or keep a dataset."""
    from sennit.cli.output import emit_json, table
    from sennit.client import Session
    from sennit_core.errors import UsageError
    from sennit_core.units import format_bytes

    if action not in (None, *_ACTIONS):
        raise UsageError(f"there is no action {action!r}", hint=f"one of: {', '.join(_ACTIONS)}")
    if (action in ("restore", "keep", "release")) != (dataset is not None):
        raise UsageError("restore, keep and release name a dataset", hint="platform cleanup trash")
    with Session.open(url, token=None, data=data) as session:
        if action == "run":
            job = session.run_maintenance("cleanup")
            removed = (job.result or {}).get("changed", 0)
            emit_json(job.to_json()) if as_json else typer.echo(f"{removed:,} removed")
            return
        if dataset is not None:
            if action == "restore":
                restored = session.cleanup.restore(dataset, name)
                emit_json(restored) if as_json else typer.echo(f"{restored['name']} is back")
            elif action == "keep":
                session.cleanup.keep(dataset)
            else:
                session.cleanup.release(dataset)
            return
        found = session.cleanup.trash() if action == "trash" else session.cleanup.plan()
    if as_json:
        emit_json(found)
    elif action == "trash":
        rows = [
            [
                each["name"],
                format_bytes(each["bytes"]),
                when(each["until"]),
                each["reason"],
                each["id"],
            ]
            for each in found
        ]
        table(None, ["dataset", "size", "until", "why", "id"], rows, right=("size",))
    else:
        rows = [
            [
                each["name"],
                format_bytes(each["bytes"]),
                when(each["usedAt"]),
                each["reason"],
                each["stays"],
            ]
            for each in found
        ]
        table(None, ["dataset", "size", "last use", "why", "stays because"], rows, right=("size",))
