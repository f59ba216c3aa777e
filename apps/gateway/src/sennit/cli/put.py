"""`platform put`: link files of this machine as datasets, or upload them, and show how they were read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import typer

from sennit.cli.output import emit_json, progress
from sennit_core.errors import DeadlineExceeded, Denied, NotFound, SennitError, UsageError

if TYPE_CHECKING:
    from elytra.client.client import LinkedFile
    from elytra.client.ingest_report import IngestedDataset
    from sennit.client import Session

__all__ = ["Put", "check_put", "print_paths", "run_put"]

_BRIEF_SECONDS = 2.0
"""The ingest of a small file has ended by then, so that the next command finds its shards."""
_LOOPBACK = ("localhost", "127.", "::1")


@dataclass(frozen=True, slots=True)
class Put:
    """The arguments of the verb.

    Args:
        files: The files.
        name: The dataset's name, for one file.
        mode: `create`, `append` or `replace`.
        options: Options for reading the files.
        copy: Upload even if the node could read the file where it is.
        link_only: Link without an ingest.
        wait: Wait until the file is ingested.
        as_json: Print JSON.
    """

    files: list[Path]
    name: str | None
    mode: str
    options: dict[str, Any]
    copy: bool = False
    link_only: bool = False
    wait: bool = False
    as_json: bool = False


def check_put(put: Put) -> None:
    """Refuse options that exclude each other and unreadable files, before anything is sent."""
    from elytra.client.upload_sender import check_file

    if put.name is not None and len(put.files) > 1:
        raise UsageError("--name works with one file only", hint="put the files one by one")
    if put.copy and put.link_only:
        raise UsageError("--copy and --link-only exclude each other", hint="leave one of them out")
    for file in put.files:
        check_file(file)


def run_put(session: Session, put: Put) -> None:
    """Put each file, and print what became of it."""
    made = []
    for file in put.files:
        linked = None if put.copy else _link(session, file, put)
        if linked is None:
            made.append(_upload(session, file, put))
        elif _is_ingested(session, file, linked, put):
            assert linked.job is not None
            made.append(_ingested(session.ingested(linked.dataset_id, linked.job), put))
        else:
            made.append(_only_linked(session, file, linked, put))
    if put.as_json:
        emit_json(made)


def _link(session: Session, file: Path, put: Put) -> LinkedFile | None:
    """Link a file; return None if the node may not read it where it is."""
    host = urlsplit(session.url).hostname or ""
    try:
        if not host.startswith(_LOOPBACK):
            raise Denied(f"linking {file}", needed="a node on this machine")
        return session.link(file, put.name, mode=put.mode, only=put.link_only, **put.options)
    except (Denied, NotFound):  # NotFound: a node of an earlier version
        if put.link_only:
            raise
        return None


def _upload(session: Session, file: Path, put: Put) -> dict[str, Any]:
    with progress(file.name) as on_progress:
        dataset = session.put(file, put.name, mode=put.mode, on_progress=on_progress, **put.options)
    return _ingested(dataset, put)


def _is_ingested(session: Session, file: Path, linked: LinkedFile, put: Put) -> bool:
    """Wait for the ingest as long as asked for; return whether it has ended."""
    if linked.job is None:
        return False
    if linked.reason is not None and not put.as_json:
        typer.echo(f"{file.name} is ingested before it can be queried: {linked.reason}", err=True)
    is_brief = linked.reason is None and not put.wait
    try:
        with progress(file.name) as on_progress:
            linked.job.wait(_BRIEF_SECONDS if is_brief else None)
            on_progress(file.stat().st_size, file.stat().st_size)
    except DeadlineExceeded:
        return False
    except SennitError:
        if linked.reason is None:
            session.delete(linked.dataset_id)  # as after a failed upload, there is no dataset
        raise
    return True


def _ingested(dataset: IngestedDataset, put: Put) -> dict[str, Any]:
    from sennit.cli.ingest_report import report_lines

    if dataset.queued is not None:
        from sennit.cli.sql import queued_note

        typer.echo(queued_note(dataset.queued), err=True)
    elif not put.as_json:
        typer.echo("\n".join(report_lines(dataset)))
    return dataset.to_json()


def _only_linked(session: Session, file: Path, linked: LinkedFile, put: Put) -> dict[str, Any]:
    dataset = session.dataset(linked.dataset_id)
    job = None if linked.job is None else linked.job.id
    if not put.as_json:
        typer.echo(f"{dataset.name}: linked to {file}, {len(dataset.schema)} columns; query it now")
        if job is None:
            typer.echo("  not ingested: the file must stay as it is")
        else:
            typer.echo(f"  its ingest goes on as job {job}; until then the file must not change")
    return dataset.to_json() | {"linked": True, "job": job}


def print_paths(session: Session, name: str, *, as_json: bool) -> None:
    """Print the files of a dataset, one a line."""
    paths = session.paths(name)
    typer.echo(json.dumps(paths) if as_json else "\n".join(paths))
