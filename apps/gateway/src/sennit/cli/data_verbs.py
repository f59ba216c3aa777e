"""The data verbs: put, datasets, sql, run, jobs, watch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sennit.cli.node_verbs import Data, Json

_SHOWN_ROWS = 100

Url = Annotated[str | None, typer.Option("--url", help="The node's address.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    for verb in (put, datasets, sql, run, jobs, watch):
        app.command()(verb)


def _session(data: Path | None, url: str | None = None) -> Any:
    from sennit.client import Session

    return Session.open(url, token=None, data=data)


def put(
    files: Annotated[
        list[Path],
        typer.Argument(help="CSV, TSV, JSON, JSON Lines, Parquet or Arrow; also .gz, .zst, .zip …"),
    ],
    name: Annotated[
        str | None, typer.Option(help="The dataset's name; by default the file's stem.")
    ] = None,
    mode: Annotated[str, typer.Option(help="create, replace or append.")] = "create",
    delimiter: Annotated[
        str | None, typer.Option(help="Field delimiter; detected by default.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Text encoding; detected by default.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail instead of changing an inferred column type.")
    ] = False,
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Encrypt the datasets that it creates.")
    ] = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Upload files and wait until they are ingested as datasets."""
    from elytra.uploads.sender import check_file
    from sennit.cli.ingest_report import report_lines
    from sennit.cli.output import emit_json, progress
    from sennit_core.errors import UsageError

    if name is not None and len(files) > 1:
        raise UsageError("--name works with one file only", hint="put the files one by one")
    options = {"delimiter": delimiter, "encoding": encoding, "strict": strict or None}
    options |= {"encrypt": encrypt or None}
    chosen = {key: value for key, value in options.items() if value is not None}
    for file in files:
        check_file(file)  # refuse unreadable files before anything is sent
    made = []
    with _session(data, url) as session:
        for file in files:
            with progress(file.name) as on_progress:
                dataset = session.put(file, name, mode=mode, on_progress=on_progress, **chosen)
            made.append(dataset)
            if not as_json:
                typer.echo("\n".join(report_lines(dataset)))
    if as_json:
        emit_json([dataset.to_json() for dataset in made])


def datasets(
    name: Annotated[str | None, typer.Argument(help="Show the columns of this dataset.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the named dataset.")] = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List datasets, show one, or delete one."""
    from sennit.cli.output import emit_json, table
    from sennit_core.errors import UsageError
    from sennit_core.units import format_bytes

    with _session(data, url) as session:
        if delete:
            if name is None:
                raise UsageError(
                    "--delete needs the name of a dataset", hint="platform datasets NAME --delete"
                )
            session.delete(name)
            typer.echo(f"deleted {name}")
            return
        found = [session.dataset(name)] if name else session.datasets()
    if as_json:
        emit_json([dataset.to_json() for dataset in found])
    elif name:
        columns = [
            (field.name, str(field.type), "yes" if field.nullable else "no")
            for field in found[0].schema.fields
        ]
        table(f"{found[0].name}: {found[0].rows:,} rows", ("column", "type", "nullable"), columns)
    else:
        rows = [(d.name, d.rows, len(d.schema.names), format_bytes(d.bytes), d.id) for d in found]
        table(None, ("name", "rows", "columns", "size", "id"), rows, right=("size",))
        for dataset in found:
            if dataset.damaged is not None:
                typer.echo(f"damaged: {dataset.damaged}", err=True)


def sql(
    query: Annotated[
        str, typer.Argument(help="A SELECT, WITH, SHOW TABLES, DESCRIBE, SUMMARIZE or EXPLAIN.")
    ],
    limit: Annotated[int, typer.Option(min=0, help="Maximum rows to print; 0 prints all.")] = 100,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    engine: Annotated[
        str, typer.Option(help="duckdb, emsqrt, or auto: EM-√ if DuckDB runs out of memory.")
    ] = "auto",
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Run a SQL query and print the result."""
    from sennit.cli.sql import Query, run_query

    run_query(
        Query(query, limit=limit, as_csv=as_csv, as_json=as_json, engine=engine, data=data, url=url)
    )


def run(
    source: Annotated[str, typer.Argument(help="A dataset, or a .json file with a plan.")],
    where: Annotated[str | None, typer.Option(help="Keep rows: 'distance > 1000'.")] = None,
    select: Annotated[str | None, typer.Option(help="Columns to keep, comma-separated.")] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Columns to group by, comma-separated.")
    ] = None,
    agg: Annotated[
        list[str] | None, typer.Option(help="Aggregate NAME=EXPRESSION, e.g. n=count().")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Maximum number of rows.")] = None,
    engine: Annotated[str, typer.Option(help="auto or local.")] = "auto",
    mem_cap: Annotated[str | None, typer.Option(help="Memory limit of each task.")] = None,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Run a pipeline as a job under a memory limit, and print its result."""
    from sennit.cli.output import emit_json, progress
    from sennit.cli.pipelines import Steps, job_from
    from sennit.cli.rows import as_rows, show

    with _session(data, url) as session:
        job = job_from(
            session,
            source,
            Steps(where=where, select=select, group_by=group_by, agg=agg or [], limit=limit),
            engine=engine,
            mem_cap=mem_cap,
        )
        with progress(f"job {job.id}", unit="tasks") as on_progress:
            for info in job.watch():
                if info.progress is not None:
                    on_progress(info.progress.done, info.progress.total or 0)
        info = job.wait()
        arrow = job.result().to_arrow()
    if as_json:
        rows = as_rows(arrow.schema, arrow.to_batches()).rows
        emit_json({"job": info.to_json(), "rows": rows, "columns": arrow.column_names})
        return
    show(as_rows(arrow.schema, arrow.to_batches(), max_rows=_SHOWN_ROWS))
    if arrow.num_rows > _SHOWN_ROWS:
        typer.echo(f"… {arrow.num_rows - _SHOWN_ROWS:,} more rows; --json prints all", err=True)


def jobs(
    job: Annotated[str | None, typer.Argument(help="Show this job.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the named job.")] = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List jobs, show one, or cancel one."""
    from sennit.cli.output import emit_json, table
    from sennit_core.errors import UsageError

    with _session(data, url) as session:
        if cancel:
            if job is None:
                raise UsageError("--cancel needs the id of a job", hint="platform jobs ID --cancel")
            session.job(job).cancel()
        found = [session.job(job).info] if job else session.jobs()
    if as_json:
        emit_json([info.to_json() for info in found])
        return
    columns = ["job", "kind", "state", "tasks", "duration", "error"]
    rows = [
        [info.id, info.kind, info.state, _tasks(info), _duration(info), _problem(info)]
        for info in found
    ]
    if not any(info.error for info in found):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    table(None, columns, rows, right=("tasks", "duration"))


def _tasks(info: Any) -> str:
    return f"{info.progress.done}/{info.progress.total or '?'}" if info.progress else ""


def _duration(info: Any) -> str:
    from sennit_core.units import format_duration

    if info.started_at is None or info.finished_at is None:
        return ""
    return format_duration(info.finished_at - info.started_at)


def _problem(info: Any) -> str:
    return str(info.error.get("error", "")) if info.error else ""


def watch(
    path: Annotated[
        str, typer.Argument(help="A job id, or a path of the realtime tree such as /jobs.")
    ],
    namespace: Annotated[str, typer.Option("--ns", help="The tree's namespace.")] = "sys",
    wait: Annotated[
        bool, typer.Option("--wait", help="If the path has no value, wait for one.")
    ] = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Print a job or a path of the realtime tree each time it changes."""
    import json

    from sennit_core.ids import is_id

    with _session(data, url) as session:
        if is_id(path):
            for info in session.job(path).watch():
                line = f"{info.state:10} {_tasks(info)}"
                typer.echo(json.dumps(info.to_json()) if as_json else line)
            return
        values = session.tree.namespace(namespace).watch(path)
        for index, value in enumerate(values):
            if index == 0 and value is None and not wait:
                raise _nothing_at(path, namespace)
            typer.echo(json.dumps(value, indent=None if as_json else 2))


def _nothing_at(path: str, namespace: str) -> Exception:
    from sennit_core.errors import NotFound

    what = f"job, and no value in namespace {namespace!r} at"
    return NotFound(
        what, path, hint="see `platform jobs`; --wait waits for a value, --ns names a namespace"
    )
