"""The verbs of `platform workers`: who computes for this node from elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from sennit.cli.data_verbs import Url
from sennit.cli.node_verbs import Data, Json


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    workers = typer.Typer(help="List and invite remote workers.", invoke_without_command=True)
    workers.callback()(list_workers)
    workers.command()(invite)
    workers.command()(revoke)
    workers.command()(readmit)
    app.add_typer(workers, name="workers")


def list_workers(
    context: typer.Context, data: Data = None, url: Url = None, as_json: Json = False
) -> None:
    """List the workers that are connected, and those that are not admitted any more."""
    if context.invoked_subcommand is not None:
        return
    from sennit.cli.output import emit_json, table
    from sennit.client import Session

    with Session.open(url, token=None, data=data) as session:
        found = session.workers.show()
    if as_json:
        emit_json(found)
        return
    rows = [
        [x["id"], x["kind"], x["engine"], x["state"], x["running"], x["finished"], x["failed"]]
        for x in found["workers"]
    ]
    counts = ("running", "finished", "failed")
    table(None, ["worker", "kind", "engine", "state", *counts], rows, right=counts)
    for each in found["excluded"]:
        typer.echo(f"not admitted any more: token {each['token']}: {each['reason']}", err=True)
        if each["doubtedJobs"]:
            jobs = ", ".join(each["doubtedJobs"])
            typer.echo(f"these jobs had ended with rows of it, and are checked: {jobs}", err=True)


def invite(
    name: Annotated[str, typer.Option("--name", help="What the token is listed as.")] = "worker",
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Print a token for one worker; it admits to nothing else. Needs an admin."""
    from sennit.cli.output import emit_json
    from sennit.client import Session

    with Session.open(url, token=None, data=data) as session:
        made = session.workers.invite(name)
        made["url"] = session.url
    if as_json:
        emit_json(made)
    else:
        typer.echo(made["token"])


def revoke(
    token: Annotated[
        str, typer.Argument(help="The token's id, as `platform workers --json` has it.")
    ],
    data: Data = None,
    url: Url = None,
) -> None:
    """Disconnect the workers with a token, and admit it no more. Needs an admin."""
    from sennit.client import Session

    with Session.open(url, token=None, data=data) as session:
        session.workers.revoke(token)
    typer.echo(f"revoked {token}")


def readmit(
    token: Annotated[
        str, typer.Argument(help="The id of an excluded token, as `platform workers` shows it.")
    ],
    data: Data = None,
    url: Url = None,
) -> None:
    """Admit workers with an excluded token again. Needs an admin."""
    from sennit.client import Session

    with Session.open(url, token=None, data=data) as session:
        session.workers.readmit(token)
    typer.echo(f"workers with the token {token} are admitted again")
