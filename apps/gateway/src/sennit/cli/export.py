"""`platform export`: write a dataset or the result of a query to a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import typer

from lake.routes.results import MEDIA_TYPES
from lake.statements.export import export_format, export_query, write_file
from sennit.cli.plain_http import Response, open_response
from sennit.client import Session
from sennit.find import find_node
from sennit_core.errors import NotFound
from sennit_core.units import format_bytes

__all__ = ["run_export"]

_PIECE_BYTES = 1 << 16


def run_export(
    source: str, file: Path, form: str | None, data: Path | None, url: str | None, *, as_json: bool
) -> None:
    """Run the query, and write its result in the format that the file's name ends with.

    Raises:
        UsageError: The ending names no format.
        NotFound: The source is neither a dataset nor a query.
        SennitError: The node's error; no file is left.
    """
    chosen = export_format(file, form)
    query = export_query(source, is_dataset=_is_dataset(source, data, url))
    document = {"sql": query}
    address = find_node(data, url)
    with open_response(*address, "/api/query", document, accept=MEDIA_TYPES[chosen]) as response:
        size = write_file(file, _pieces(response))
    if as_json:
        typer.echo(json.dumps({"file": str(file), "bytes": size}))
    else:
        typer.echo(f"{file}: {format_bytes(size)}")


def _is_dataset(source: str, data: Path | None, url: str | None) -> bool:
    with Session.open(url, token=None, data=data) as session:
        try:
            session.dataset(source)
        except NotFound:
            return False
        return True


def _pieces(response: Response) -> Iterator[bytes]:
    while piece := response.read(_PIECE_BYTES):
        yield piece
