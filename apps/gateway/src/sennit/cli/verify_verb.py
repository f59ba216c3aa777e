"""The verb verify: check stored bytes against their hashes."""

from __future__ import annotations

from typing import Annotated

import typer

from sennit.cli.data_verbs import Url
from sennit.cli.node_verbs import Data, Json


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command()(verify)


def verify(
    dataset: Annotated[
        str | None, typer.Argument(help="Verify this dataset only.", show_default=False)
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair damage; not available in this version.")
    ] = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Read datasets from disk and compare every byte with its hash; exit with 1 on damage."""
    from sennit.cli.output import emit_json, progress
    from sennit.client import Session
    from sennit_core.units import format_bytes

    with Session.open(url, token=None, data=data) as session, progress("verify") as on_progress:
        report = session.verify(dataset, repair=repair, on_progress=on_progress)
    if as_json:
        emit_json(report.to_json())
    else:
        for finding in report.findings:
            typer.echo(finding.problem)
        damaged = len({finding.dataset_id for finding in report.findings})
        typer.echo(
            f"{report.datasets:,} datasets, {report.objects:,} objects, "
            f"{format_bytes(report.bytes_done)} read: "
            + (f"{damaged:,} datasets damaged" if damaged else "no damage")
        )
    if report.findings:
        raise typer.Exit(1)
