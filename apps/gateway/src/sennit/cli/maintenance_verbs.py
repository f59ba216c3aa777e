"""The verbs maintenance, retention and purge: what happens to old versions, and to rows that must go."""

from __future__ import annotations

from typing import Annotated

import typer

from sennit.cli.data_verbs import Url
from sennit.cli.node_verbs import Data, Json

_DAY_SECONDS = 86_400.0
_HELP_WHERE = "The condition, as after WHERE; write ? for each --param."


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command()(maintenance)
    app.command()(retention)
    app.command()(purge)


def maintenance(
    action: Annotated[
        str | None, typer.Argument(help="`run`, to run a task now.", show_default=False)
    ] = None,
    task: Annotated[
        str | None,
        typer.Argument(
            help="scrub, compact, statistics, expire, cleanup or sweep.", show_default=False
        ),
    ] = None,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List the tasks of maintenance, or run one and wait for it."""
    from sennit.cli.output import emit_json, table
    from sennit.client import Session
    from sennit_core.errors import UsageError

    if action not in (None, "run") or (action == "run") != (task is not None):
        raise UsageError("a task goes with `run`", hint="platform maintenance run compact")
    with Session.open(url, token=None, data=data) as session:
        if task is not None:
            job = session.run_maintenance(task)
            result = job.result or {}
            changed, skipped = result.get("changed", 0), result.get("skipped", 0)
            text = f"{task}: {changed:,} changed, {skipped:,} skipped"
            emit_json(job.to_json()) if as_json else typer.echo(text)
            return
        found = session.maintenance()
    if as_json:
        emit_json(found)
        return
    rows = [
        [
            each["task"],
            "running" if each["running"] else when(each["nextAt"]) if each["periodSeconds"] else "",
            when(each["finishedAt"]),
            f"{each['changed']:,}",
            f"{each['skipped']:,}",
            each.get("problem") or "",
        ]
        for each in found
    ]
    columns = ["task", "next", "last", "changed", "skipped", "problem"]
    table(None, columns, rows, right=("changed", "skipped"))


def retention(
    dataset: Annotated[str, typer.Argument(help="Name or id of the dataset.")],
    keep: Annotated[
        int | None, typer.Option("--keep", help="Versions that stay; 0 keeps all.")
    ] = None,
    days: Annotated[
        float | None, typer.Option("--days", help="Only versions that were replaced so long ago.")
    ] = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove the rule: the node's own applies.")
    ] = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show or set which versions of a dataset maintenance keeps."""
    from sennit.cli.output import emit_json
    from sennit.client import Session
    from sennit_core.errors import UsageError

    if clear and keep is not None:
        raise UsageError("--keep and --clear contradict each other", hint="use one of them")
    if days is not None and not keep:
        raise UsageError("--days goes with --keep", hint="--keep 1 --days 30")
    with Session.open(url, token=None, data=data) as session:
        if clear:
            rule = session.clear_retention(dataset)
        elif keep is not None:
            older = (days or 0.0) * _DAY_SECONDS
            rule = session.set_retention(dataset, keep=keep, older_than_seconds=older)
        else:
            rule = session.retention(dataset)
    if as_json:
        emit_json(rule)
    elif not rule["keep"]:
        typer.echo(f"every version of {dataset} stays")
    else:
        older = rule["olderThanSeconds"] / _DAY_SECONDS
        typer.echo(
            f"the newest {rule['keep']:,} stay, and those replaced in the last {older:g} days"
        )


def purge(
    dataset: Annotated[str, typer.Argument(help="Name or id of the dataset.")],
    where: Annotated[str, typer.Option("--where", help=_HELP_WHERE)],
    params: Annotated[
        list[str] | None, typer.Option("--param", help="A value for a ?, as text.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Remove rows from every version of a dataset, and every copy of them. There is no way back."""
    from sennit.cli.output import emit_json
    from sennit.client import Session

    if not yes:
        typer.confirm(f"Remove these rows from every version of {dataset}?", abort=True)
    with Session.open(url, token=None, data=data) as session:
        report = session.purge(dataset, where, list(params) if params else None)
    if as_json:
        emit_json(report)
        return
    typer.echo(
        f"{report['rows']:,} rows left {dataset}, {report['rowsAll']:,} in all its versions; "
        f"{report['shards']:,} shards were written anew"
    )
    if report["stillRead"]:
        typer.echo(f"{report['stillRead']:,} old objects go when their last reader has ended")


def when(seconds: float) -> str:
    """Return Unix seconds as local time; nothing for 0."""
    from datetime import datetime

    if not seconds:
        return ""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
