"""The data verbs: put, path, datasets, sql, export, run, jobs, watch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sennit.cli.node_verbs import Data, Json

if TYPE_CHECKING:
    from elytra.client.result import Result
    from sennit_core.records import JobInfo

_SHOWN_ROWS = 100
WRITER_REVOKED = (
    "which was removed from the network: it gets no new versions; "
    "`platform fork` copies it, `platform datasets NAME --delete` deletes it here"
)

Url = Annotated[str | None, typer.Option("--url", help="The node's address.", show_default=False)]
_Key = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN", help="A column of the key of `--mode upsert`."),
]
_PartitionBy = Annotated[
    list[str] | None,
    typer.Option(metavar="FIELD", help="Such as country, month(ts) or bucket(16, user)."),
]
_SortBy = Annotated[
    list[str] | None, typer.Option(metavar="FIELD", help="Such as ts or 'ts DESC'.")
]
_DateOrder = Annotated[
    str | None, typer.Option(help="dmy or mdy, for dates such as 1/2/2026; detected by default.")
]
_Queue = Annotated[
    bool,
    typer.Option(
        "--queue", help="Let an append wait if another node writes the dataset, and is away."
    ),
]
_Types = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="COLUMN=TYPE", help="A column's type, such as zip=Utf8."),
]


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    for verb in (put, path, datasets, sql, export, run, jobs, watch):
        app.command()(verb)


def _session(data: Path | None, url: str | None = None) -> Any:
    from sennit.client import Session

    return Session.open(url, token=None, data=data)


def put(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="CSV, TSV, Excel, JSON, JSON Lines, Parquet or Arrow; also .gz, .zst, .zip …"
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="The dataset's name; by default the file's stem.")
    ] = None,
    mode: Annotated[str, typer.Option(help="create, replace, append or upsert.")] = "create",
    key: _Key = None,
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
        bool | None,
        typer.Option("--encrypt/--no-encrypt", help="Encrypt the datasets that it creates."),
    ] = None,
    sheet: Annotated[
        str | None, typer.Option(help="Sheet of an Excel workbook; the first by default.")
    ] = None,
    date_order: _DateOrder = None,
    types: _Types = None,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Leave out rows that do not fit, and keep them.")
    ] = False,
    partition_by: _PartitionBy = None,
    sort_by: _SortBy = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Upload the file, also to a node on this machine.")
    ] = False,
    link_only: Annotated[
        bool, typer.Option("--link-only", help="Query the file where it is; never ingest it.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the file is ingested.")] = False,
    queue: _Queue = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Make datasets of files: link them where they are, or upload them, and ingest them."""
    from lake.type_options import parse_types
    from sennit.cli.put import Put, check_put, run_put

    options: dict[str, Any] = {
        "delimiter": delimiter,
        "encoding": encoding,
        "strict": strict or None,
    }
    options |= {"sheet": sheet, "columns": parse_types(types or []) or None}
    options |= {
        "key": key or None,
        "partition_by": partition_by or None,
        "sort_by": sort_by or None,
    }
    options |= {"encrypt": encrypt, "date_order": date_order}
    options |= {"on_bad_row": "skip" if skip_bad_rows else None, "queue": queue or None}
    chosen = {key: value for key, value in options.items() if value is not None}
    wanted = Put(files, name, mode, chosen, copy, link_only, wait, as_json)
    check_put(wanted)
    with _session(data, url) as session:
        run_put(session, wanted)


def path(
    name: Annotated[str, typer.Argument(help="A dataset.")],
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Print the Parquet files of a dataset, or the file that it is linked to."""
    from sennit.cli.put import print_paths

    with _session(data, url) as session:
        print_paths(session, name, as_json=as_json)


def datasets(
    name: Annotated[str | None, typer.Argument(help="Show the columns of this dataset.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the named dataset.")] = False,
    views: Annotated[bool, typer.Option("--views", help="List the views.")] = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List datasets, show one, or delete one; list views."""
    from sennit.cli.output import emit_json, table
    from sennit_core.errors import UsageError
    from sennit_core.units import format_bytes

    with _session(data, url) as session:
        if views:
            _print_views(session.views(), as_json=as_json)
            return
        if delete:
            if name is None:
                raise UsageError(
                    "--delete needs the name of a dataset", hint="platform datasets NAME --delete"
                )
            session.delete(name)
            typer.echo(f"deleted {name}")
            return
        found = [session.dataset(name)] if name else session.datasets()
        orphans = [] if as_json else _of_revoked_nodes(session, found)
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
    for orphan in orphans:
        typer.echo(f"{orphan.name}: it is of a node, {WRITER_REVOKED}", err=True)


def _of_revoked_nodes(session: Any, found: list[Any]) -> list[Any]:
    """Return the datasets whose writer was removed from the network; what came from it stays."""
    if all(each.node is None for each in found):
        return []
    members = {each["id"] for each in session.network.show()["nodes"]}
    return [each for each in found if each.node is not None and each.node not in members]


def _print_views(views: list[dict[str, Any]], *, as_json: bool) -> None:
    from sennit.cli.output import emit_json, table

    if as_json:
        emit_json(views)
        return
    rows = [(view["name"], view["owner"], " ".join(view["sql"].split())) for view in views]
    table(None, ("name", "owner", "query"), rows)


def sql(
    query: Annotated[str, typer.Argument(help="A query, or a statement that changes datasets.")],
    limit: Annotated[int, typer.Option(min=0, help="Maximum rows to print; 0 prints all.")] = 100,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    engine: Annotated[
        str, typer.Option(help="duckdb, emsqrt, ray, or auto: EM-√ if DuckDB runs out of memory.")
    ] = "auto",
    priority: Annotated[
        str, typer.Option(help="interactive, or batch: wait while interactive statements do.")
    ] = "interactive",
    allow_partial: Annotated[
        bool,
        typer.Option(
            "--allow-partial", help="Leave out shards that no node has which can be reached."
        ),
    ] = False,
    queue: _Queue = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Run a SQL statement and print the result."""
    from sennit.cli.sql import Query, run_query

    run_query(
        Query(query, limit, as_csv, as_json, engine, priority, allow_partial, queue, data, url)
    )


def export(
    source: Annotated[str, typer.Argument(help="A dataset, or a query.")],
    file: Annotated[
        Path, typer.Argument(help="Its ending names the format: .csv .parquet .jsonl .arrow .xlsx.")
    ],
    form: Annotated[
        str | None, typer.Option("--format", help="csv, parquet, jsonl, arrow or xlsx.")
    ] = None,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Write a dataset or the result of a query to a file."""
    from sennit.cli.export import run_export

    run_export(source, file, form, data, url, as_json=as_json)


def run(
    source: Annotated[str, typer.Argument(help="A dataset or view, or a .json file with a plan.")],
    version: Annotated[
        str | None, typer.Option(help="The number or tag of a version of the dataset.")
    ] = None,
    timestamp: Annotated[
        str | None, typer.Option(help="The newest version then: 2026-01-31T12:00, in UTC.")
    ] = None,
    where: Annotated[str | None, typer.Option(help="Keep rows: 'distance > 1000'.")] = None,
    select: Annotated[str | None, typer.Option(help="Columns to keep, comma-separated.")] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Columns to group by, comma-separated.")
    ] = None,
    agg: Annotated[
        list[str] | None, typer.Option(help="Aggregate NAME=EXPRESSION, e.g. n=count().")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Maximum number of rows.")] = None,
    engine: Annotated[str, typer.Option(help="auto, local or peers.")] = "auto",
    mem_cap: Annotated[str | None, typer.Option(help="Memory limit of each task.")] = None,
    priority: Annotated[
        str, typer.Option(help="Its share among your jobs: low, normal or high.")
    ] = "normal",
    deadline: Annotated[
        float | None, typer.Option(help="Seconds after which the job fails.")
    ] = None,
    task_deadline: Annotated[
        float | None, typer.Option(help="Seconds after which a task fails, and so the job.")
    ] = None,
    skip_poisoned: Annotated[
        bool,
        typer.Option(help="Leave out inputs whose tasks fail on several workers, and name them."),
    ] = False,
    sample_percent: Annotated[
        float | None,
        typer.Option(
            help="Tasks of remote workers that the node runs too and compares, in percent."
        ),
    ] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Leave out shards that no node has.")
    ] = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Run a pipeline as a job under a memory limit, and print its result."""
    from sennit.cli.output import progress
    from sennit.cli.pipelines import Steps, job_from

    steps = Steps(where, group_by, agg or [], select, limit, version, timestamp)
    choices = {
        "priority": priority,
        "deadline_seconds": deadline,
        "task_seconds": task_deadline,
        "on_poison": "skip" if skip_poisoned else "fail",
        "allow_partial": allow_partial,
        "sample_percent": sample_percent,
    }
    with _session(data, url) as session:
        job = job_from(session, source, steps, engine=engine, mem_cap=mem_cap, choices=choices)
        with progress(f"job {job.id}", unit="tasks") as on_progress:
            for info in job.watch():
                if info.progress is not None:
                    on_progress(info.progress.done, info.progress.total or 0)
        info = job.wait()
        result = job.result()
    _show_result(info, result, as_json=as_json)


def _show_result(info: JobInfo, result: Result, *, as_json: bool) -> None:
    from sennit.cli.output import emit_json
    from sennit.cli.rows import as_rows, show
    from sennit.cli.sql import note_missing

    _warn_of_skipped(result.skipped)
    if info.result and "missing" in info.result:
        note_missing(info.result["missing"])
    arrow = result.to_arrow()
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
    retry: Annotated[
        bool, typer.Option("--retry", help="Start the named job again, which has failed.")
    ] = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List jobs, show one, cancel one, or start one again."""
    from sennit.cli.output import emit_json, table
    from sennit_core.errors import UsageError

    option = "--cancel" if cancel else "--retry"
    if (cancel or retry) and job is None:
        raise UsageError(f"{option} needs the id of a job", hint=f"platform jobs ID {option}")
    if cancel and retry:
        raise UsageError("a job is either cancelled or retried", hint="use one of the options")
    with _session(data, url) as session:
        if cancel:
            session.job(str(job)).cancel()
        if retry:
            job = session.job(str(job)).retry().id
        found = [session.job(job).info] if job else session.jobs()
    if as_json:
        emit_json([info.to_json() for info in found])
        return
    columns = ["job", "kind", "state", "tasks", "duration"]
    rows = [[info.id, info.kind, info.state, _tasks(info), _duration(info)] for info in found]
    for name, text_of in (("check", _check), ("error", _problem)):
        if any(map(text_of, found)):
            columns.append(name)
            rows = [[*row, text_of(info)] for row, info in zip(rows, found, strict=True)]
    table(None, columns, rows, right=("tasks", "duration"))
    if job and found[0].check:
        _explain_check(found[0].check)


def _warn_of_skipped(skipped: list[dict[str, Any]]) -> None:
    if skipped:
        typer.echo(f"INCOMPLETE: the result lacks {len(skipped)} inputs:", err=True)
    for each in skipped:
        typer.echo(f"  {_place(each)}: {each['error']['error']}", err=True)


def _place(skipped: Any) -> str:
    name = f"{skipped['dataset']}, shard {skipped['shard'][:12]}, {skipped['rows']:,} rows"
    if skipped["byteStart"] is None:
        return name
    return f"{name}, bytes {skipped['byteStart']:,} to {skipped['byteEnd']:,} of its source"


def _tasks(info: Any) -> str:
    return f"{info.progress.done}/{info.progress.total or '?'}" if info.progress else ""


def _duration(info: Any) -> str:
    from sennit_core.units import format_duration

    if info.started_at is None or info.finished_at is None:
        return ""
    return format_duration(info.finished_at - info.started_at)


def _check(info: Any) -> str:
    return str(info.check["state"]) if info.check else ""


def _explain_check(check: Any) -> None:
    """Say what is known of a job whose rows came from a worker that was found to be wrong."""
    typer.echo(f"rows of it came from a worker that was found to be wrong (token {check['token']})")
    if "job" in check:
        typer.echo(f"job {check['job']} computes it again")
    if "reason" in check:
        typer.echo(f"not checked: {check['reason']}", err=True)
    if "savedAs" in check:
        typer.echo(f"datasets with the wrong rows: {', '.join(check['savedAs'])}", err=True)


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
