"""The verbs of `platform bundle`: datasets in one encrypted file, to seed a node by disk."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sennit.cli.data_verbs import Url
from sennit.cli.node_verbs import Data, Json

_Passphrase = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="Its first line is the passphrase; asked for else.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    bundle = typer.Typer(no_args_is_help=True, help="Export and import datasets as one file.")
    bundle.command("export")(export)
    bundle.command("import")(load)
    app.add_typer(bundle, name="bundle")


def export(
    names: Annotated[list[str], typer.Argument(help="Names or ids of datasets.")],
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The bundle, a new file.")],
    passphrase_file: _Passphrase = None,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Write the newest versions of datasets to an encrypted file that this node signs."""
    from sennit.cli.output import emit_json, progress
    from sennit.client import Session
    from sennit_core.errors import Unavailable
    from sennit_core.units import format_bytes

    passphrase = _passphrase(passphrase_file, is_new=True)
    with Session.open(url, token=None, data=data) as session, progress("export") as show:
        report = session.bundles.export(names, to, passphrase, on_progress=lambda r: _show(show, r))
    if not to.is_file() or to.stat().st_size != report["fileBytes"]:
        raise Unavailable(f"{to} here", hint="the node runs on another machine, and wrote it there")
    if as_json:
        emit_json(report)
    else:
        typer.echo(
            f"{to}: {', '.join(report['datasets'])}; {report['objects']:,} objects, "
            f"{format_bytes(report['fileBytes'])}"
        )


def load(
    file: Annotated[Path, typer.Argument(help="A bundle.")],
    passphrase_file: _Passphrase = None,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Import a bundle: copies of what is shared with this node, or else new datasets."""
    from sennit.cli.output import emit_json, progress
    from sennit.client import Session

    passphrase = _passphrase(passphrase_file, is_new=False)
    with Session.open(url, token=None, data=data) as session, progress("import") as show:
        report = session.bundles.load(file, passphrase, on_progress=lambda r: _show(show, r))
    if as_json:
        emit_json(report)
        return
    names = ", ".join(report["datasets"])
    if report.get("seeded"):
        typer.echo(f"{names}: copies of datasets of the network")
    else:
        typer.echo(f"{names}: new datasets of this node, from node {report['node'][:16]}")


def _show(show: Any, report: Mapping[str, Any]) -> None:
    show(report["bytesDone"], report["bytesTotal"])


def _passphrase(file: Path | None, *, is_new: bool) -> str:
    from lake.encryption.keys import read_secret
    from sennit_core.errors import UsageError

    if file is not None:
        secret = read_secret(passphrase_file=file)
        assert secret is not None, "a file was named"
        return secret.content.decode()
    if not sys.stdin.isatty():
        raise UsageError(
            "a bundle needs a passphrase, and there is no terminal to ask at",
            hint="add --passphrase-file FILE",
        )
    return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=is_new, err=True))
