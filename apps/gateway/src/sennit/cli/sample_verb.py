"""The verb sample: load two small datasets to try a node, or a network, with."""

from __future__ import annotations

from typing import Annotated

import typer

from sennit.cli.data_verbs import Url
from sennit.cli.node_verbs import Data, Json

_ALL = "all"


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command()(sample)


def sample(
    share: Annotated[
        list[str] | None,
        typer.Option("--share", metavar="NODE", help="Share them with a node, or all; repeatable."),
    ] = None,
    copies: Annotated[
        int, typer.Option("--copies", min=1, max=16, help="Nodes that hold each shard.")
    ] = 1,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Load the datasets employees and products, and share them if that is asked for."""
    import tempfile
    from pathlib import Path

    from sennit.cli.output import emit_json
    from sennit.client import Session
    from sennit.sample_data import EXAMPLE, SAMPLES, write_sample

    loaded: list[str] = []
    with (
        Session.open(url, token=None, data=data) as session,
        tempfile.TemporaryDirectory() as folder,
    ):
        present = {dataset.name for dataset in session.datasets()}
        for name in SAMPLES:
            # What is there stays private: it may be another dataset, which only has the name.
            if name in present:
                continue
            session.put(write_sample(name, Path(folder)), name)
            loaded.append(name)
            if share is not None:
                readers = None if _ALL in share else share
                session.network.share(name, readers, copies=copies)
    if as_json:
        emit_json({"loaded": loaded, "shared": loaded if share is not None else []})
        return
    others = "all nodes" if share is None or _ALL in share else ", ".join(share)
    shared = "loaded" if share is None else f"loaded, and shared with {others}"
    for name in SAMPLES:
        there = (
            f"is there already, and stays as it is: `platform share {name} --with NODE` shares it"
        )
        typer.echo(f"{name}: {shared if name in loaded else there}")
    typer.echo(f'try: platform sql "{EXAMPLE}"')
