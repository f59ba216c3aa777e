"""The verbs check and map of `platform net`: what is wrong with the network, and how it is connected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from sennit.cli.data_verbs import Url
from sennit.cli.node_verbs import Data, Json

_LINKS_MAX = 50
_NAME_MAX = 20


def check(data: Data = None, url: Url = None, as_json: Json = False) -> None:
    """Find out what is wrong with the network; the exit status is 1 if something is."""
    from sennit.cli.output import emit_json
    from sennit.client import Session

    with Session.open(url, token=None, data=data) as session:
        found = session.network.check()
    if as_json:
        emit_json(found)
    else:
        for each in found["findings"]:
            typer.echo(f"{'ok' if each['ok'] else 'PROBLEM':8} {each['subject']}: {each['found']}")
            if each["remedy"]:
                typer.echo(f"{'':8} -> {each['remedy']}")
        problems = sum(not each["ok"] for each in found["findings"])
        typer.echo(f"\n{problems} problems" if problems != 1 else "\n1 problem")
    if not found["ok"]:
        raise typer.Exit(1)


def network_map(data: Data = None, url: Url = None, as_json: Json = False) -> None:
    """Show the nodes, the connections between all of them, and what each node lacks."""
    from sennit.cli.output import emit_json
    from sennit.client import Session

    with Session.open(url, token=None, data=data) as session:
        found = session.network.map()
    if as_json:
        emit_json(found)
    else:
        _print_map(found)


def heal(
    dataset: Annotated[
        str | None, typer.Argument(help="Repair this dataset only.", show_default=False)
    ] = None,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Repair the copies of shared datasets now; the exit status is 1 if something is left."""
    from sennit.cli.output import emit_json, status_line
    from sennit.client import Session

    with Session.open(url, token=None, data=data) as session, status_line() as show:
        found = session.network.heal(dataset, on_progress=lambda each: show(_progress(each)))
    if as_json:
        emit_json(found)
    else:
        typer.echo(_progress(found))
        for each in found["problems"]:
            typer.echo(f"PROBLEM  {each['subject']}: {each['found']}")
            typer.echo(f"{'':8} -> {each['remedy']}")
    if found["problems"]:
        raise typer.Exit(1)


def _progress(report: Mapping[str, Any]) -> str:
    text = f"{report['verified']:,} objects verified here, {report['damaged']:,} of them damaged"
    if not report["objects"]:
        return f"{report['datasets']:,} shared datasets; {text}"
    if not (report["underReplicated"] or report["unavailable"] or report["missing"]):
        return f"shards: {report['objects']:,}, each with all of its copies; {text}"
    names = ", ".join(report["waitsFor"])
    waits = f"waiting up to {report['waitsSeconds']:.0f} s for {names}, which does not answer; "
    return (
        f"{waits if names else ''}shards: {report['objects']:,}, "
        f"{report['missing']:,} copies missing, {report['underReplicated']:,} with too few, "
        f"{report['unavailable']:,} without any; {text}"
    )


def _print_map(found: dict[str, Any]) -> None:
    from sennit.cli.output import table
    from sennit_core.units import format_bytes

    lacks: dict[str, list[str]] = {}
    for each in found["lacking"]:
        lacks.setdefault(each["node"], []).append(f"{each['shards']:,} of {each['dataset']}")
    nodes = [
        [
            _short(each["name"]),
            each["state"],
            _short(each["zone"] or ""),
            f"{format_bytes(each['usedBytes'])} of {format_bytes(each['capacityBytes'])}"
            if each["capacityBytes"]
            else "no room",
            ", ".join(lacks.get(each["name"], [])),
        ]
        for each in found["nodes"]
    ]
    table("Nodes", ["node", "state", "zone", "copies", "lacks"], nodes)
    links = [
        [
            " - ".join(map(_short, each["nodes"])),
            "" if each["rttSeconds"] is None else f"{each['rttSeconds'] * 1000:.1f} ms",
            f"through {_short(each['relay'])}" if each["relay"] else "direct",
        ]
        for each in found["links"]
    ]
    table("Connections", ["between", "round trip", "way"], links[:_LINKS_MAX], right=["round trip"])
    if len(links) > _LINKS_MAX:
        typer.echo(f"and {len(links) - _LINKS_MAX:,} more: --json has all")
    for each in found["nodes"]:
        if each["problem"] is not None:
            typer.echo(f"{each['name']} did not say what it is connected to: {each['problem']}")


def _short(name: str) -> str:
    return name if len(name) <= _NAME_MAX else f"{name[: _NAME_MAX - 1]}…"
