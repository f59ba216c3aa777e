"""The node verbs: up, down, status, logs, doctor, version."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[Path | None, typer.Option("--data", help="The node's folder.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_LOGS = ("system", "audit", "peers", "playground")


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    for verb in (up, down, status, logs, doctor, version):
        app.command()(verb)


def up(
    data: Data = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="Port of the gateway; 0 picks a free port."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    memory: Annotated[
        str | None, typer.Option(help="Memory limit of the whole node, e.g. 2GiB.")
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, max=16, help="Nodes to start on this machine.")] = 1,
    demo: Annotated[
        bool, typer.Option("--demo", help="Load the flights data, run a query and a pipeline.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Run in the background; return once the node is up.")
    ] = False,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open the playground in a browser.")
    ] = False,
    api_only: Annotated[
        bool, typer.Option("--api-only", help="Do not serve the playground.")
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow a non-loopback address without TLS.")
    ] = False,
    no_flight: Annotated[
        bool, typer.Option("--no-flight", help="Do not serve Flight SQL.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            help="Also run jobs on a Ray cluster: auto, or HOST:PORT of its head.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host", metavar="NAME", help="Accept this name in the Host header; repeatable."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What other nodes of a network call this one.")
    ] = None,
    join: Annotated[
        str | None,
        typer.Option(
            "--join",
            metavar="INVITE",
            help="Join a network once the node is up (- reads the invite from stdin).",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Start a node and print its URL; several nodes form a network."""
    from sennit.cli.start import Start, start

    if join == "-":  # other accounts can see arguments for as long as the node runs
        join = sys.stdin.readline().strip()
    start(
        Start(
            data=data, port=port, host=host, memory=memory, nodes=nodes, demo=demo, detach=detach,
            open_browser=open_browser, api_only=api_only, insecure=insecure,
            no_flight=no_flight, allowed_hosts=tuple(allow_host or ()), join=join,
            name=name, as_json=as_json, ray=ray,
        )
    )  # fmt: skip


def down(data: Data = None, as_json: Json = False) -> None:
    """Stop the node of a data folder, and additional nodes started with it."""
    from sennit.cli.start import stop_all
    from sennit.settings import default_data

    stopped = stop_all(data or default_data())
    if as_json:
        from sennit.cli.output import emit_json

        emit_json({"stopped": stopped})
    else:
        typer.echo(f"stopped {', '.join(stopped)}" if stopped else "no node was running")


def status(data: Data = None, as_json: Json = False) -> None:
    """Show the node's address, and the memory limit and usage of each process."""
    from sennit.cli.output import emit_json, table
    from sennit.client import Session
    from sennit_core.units import format_bytes, format_duration

    with Session.open(None, token=None, data=data) as session:
        stats = session.stats()
        url = session.url
    if as_json:
        emit_json({"url": url, **stats})
        return
    memory = stats["memory"]
    shares = memory["shares"]
    typer.echo(f"{url}   sennit {stats['version']}   up {format_duration(stats['uptimeSeconds'])}")
    if stats["flight"] is not None:
        typer.echo(f"Flight SQL: {stats['flight']}")
    typer.echo(f"executors busy: {stats['busy']}   requests queued: {stats['waiting']}\n")
    rows = [("gateway", shares["gatewayBytes"], memory["gatewayBytes"])]
    used = [row["memoryBytes"] for row in stats["executors"]]
    used += [0] * (shares["executors"] - len(used))  # executors start on first use
    rows += [(f"executor {i}", shares["executorBytes"], bytes_) for i, bytes_ in enumerate(used)]
    rows.append(("all", memory["capBytes"], memory["usedBytes"]))
    shown = [(name, format_bytes(share), format_bytes(now)) for name, share, now in rows]
    table(None, ("process", "limit", "used"), shown, right=("limit", "used"))


def logs(
    data: Data = None,
    lines: Annotated[
        int, typer.Option("-n", "--lines", min=0, max=1_000_000, help="Lines from the end.")
    ] = 50,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Print new lines as they are written.")
    ] = False,
    which: Annotated[str, typer.Option(help="system, audit, peers or playground.")] = "system",
    as_json: Json = False,
) -> None:
    """Print the end of a node's log."""
    from sennit.cli.start import tail
    from sennit.settings import default_data
    from sennit_core.errors import UsageError

    if which not in _LOGS:
        raise UsageError(f"there is no log {which!r}", hint=f"use one of {', '.join(_LOGS)}")
    tail(data or default_data(), which, lines, follow=follow, as_json=as_json)


def doctor(data: Data = None, as_json: Json = False) -> None:
    """Check this machine's requirements for a node, and print how to fix problems."""
    from sennit.cli.output import emit_json, table
    from sennit.doctor import examine
    from sennit.settings import default_data

    findings = examine(data or default_data())
    if as_json:
        emit_json([finding.to_json() for finding in findings])
    else:
        rows = [("ok" if f.ok else "PROBLEM", f.subject, f.found) for f in findings]
        table(None, ("", "check", "found"), rows)
        for finding in findings:
            if not finding.ok:
                typer.echo(f"to fix {finding.subject}: {finding.remedy}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def version(as_json: Json = False) -> None:
    """Print the versions of Sennit's packages."""
    from importlib.metadata import requires
    from importlib.metadata import version as version_of

    needed = (re.match(r"sennit-\w+", requirement) for requirement in requires("sennit") or ())
    siblings = {found[0] for found in needed if found}
    versions = {name: version_of(name) for name in ("sennit", *sorted(siblings))}
    if as_json:
        from sennit.cli.output import emit_json

        emit_json(versions)
        return
    for name, number in versions.items():
        typer.echo(f"{name} {number}")
