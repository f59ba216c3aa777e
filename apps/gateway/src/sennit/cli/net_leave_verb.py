"""The verb leave of `platform net`: hand over what this node holds for others, and leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from sennit.cli.data_verbs import Url
from sennit.cli.node_verbs import Data, Json


def leave(
    now: Annotated[
        bool, typer.Option("--now", help="Do not wait until others hold what this node holds.")
    ] = False,
    wait: Annotated[
        float, typer.Option("--wait", min=1, max=604_800, help="Seconds to wait for other nodes.")
    ] = 600.0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Hand over what this node holds for others, and leave the network."""
    from sennit.cli.output import emit_json, status_line
    from sennit.client import Session

    with Session.open(url, token=None, data=data) as session:
        losses = _losses(session.network.consequences_of_leaving(), now=now)
        for line in losses:
            typer.echo(line, err=True)
        if losses and not yes and not typer.confirm("Leave the network?", err=True):
            raise typer.Exit(1)
        with status_line() as show:
            report = session.network.leave(
                wait_seconds=0.0 if now else wait, on_progress=lambda each: show(_progress(each))
            )
    if as_json:
        emit_json(report)
    elif report["left"]:
        typer.echo("this node is in no network now")
    else:
        typer.echo(f"this node stays: {_progress(report)}", err=True)
        typer.echo(
            "hint: no other node may hold them, or offers room (`platform net check`); "
            "--now leaves all the same",
            err=True,
        )
    if not report["left"]:
        raise typer.Exit(1)


def _losses(found: Mapping[str, Any], *, now: bool) -> list[str]:
    lines = []
    if found["writes"]:
        names = ", ".join(found["writes"])
        lines.append(f"other nodes get no new versions of: {names}, which become private here")
    if found["reads"]:
        lines.append(f"this node can read no longer: {', '.join(found['reads'])}")
    if now and lines:
        lines.append("shards that only this node holds are lost to the others (--now)")
    return lines


def _progress(report: Mapping[str, Any]) -> str:
    text = f"{report['waiting']:,} of {report['objects']:,} shards are still to be handed over"
    return f"{text}, of {', '.join(report['datasets'])}" if report["datasets"] else text
