"""The verbs of `elytra`; exit status 0 done, 1 failed, 2 wrong request, 4 no such file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from elytra.cli.codegen.forms import FORMS, code_of
from elytra.cli.files import load_pipeline, load_plan, open_session
from emsqrt.pipeline import SUFFIX_FORMATS
from sennit_core.errors import NotFound, SennitError, UsageError

app = typer.Typer(
    help="Run and explain pipelines on this machine, without a node.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_VERBS = {"csv": "write_csv", "jsonl": "write_json", "parquet": "write_parquet"}

File = Annotated[
    Path,
    typer.Argument(
        help="Python with a function pipeline(local), plan JSON, or steps of EM-√ in YAML or JSON."
    ),
]
MemCap = Annotated[
    str | None, typer.Option(help="The most memory of the run's process, such as 256MiB.")
]


@app.command()
def run(
    file: File,
    local: Annotated[
        bool, typer.Option("--local", help="On this machine; this is the default.")
    ] = True,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .csv, .jsonl or .parquet file.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Rows that are printed.")] = 20,
    mem_cap: MemCap = None,
) -> None:
    """Run a pipeline: print its first rows, or write all of them to a file."""
    with _reporting(), open_session(file, mem_cap) as session:
        pipeline, target = load_pipeline(file, session)
        if output is not None:
            written = getattr(pipeline, _VERBS[_format_of(output)])(output)
            typer.echo(f"wrote {written}")
        elif target is not None:
            typer.echo(f"wrote {session.write(pipeline, target)}")
        else:
            pipeline.show(limit)


@app.command()
def explain(file: File, mem_cap: MemCap = None) -> None:
    """Print where each step of a pipeline runs, and what it reads; nothing is run."""
    with _reporting(), open_session(file, mem_cap) as session:
        pipeline, target = load_pipeline(file, session)
        typer.echo(pipeline.explain())
        if target is not None:
            typer.echo(f"writes {target.path}")


@app.command()
def codegen(
    file: File,
    to: Annotated[
        str, typer.Option("--to", help=f"The form: {', '.join(FORMS)}.", metavar="FORM")
    ] = "python",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file; it is printed by default.")
    ] = None,
) -> None:
    """Print a pipeline as code: Python, TypeScript, YAML or plan JSON; nothing is run."""
    with _reporting():
        if to not in FORMS:
            raise UsageError(f"there is no form {to!r}", hint=f"--to {', '.join(FORMS)}")
        text = code_of(load_plan(file), to)
        if output is None:
            sys.stdout.write(text)
        else:
            output.write_text(text, encoding="utf-8")
            typer.echo(f"wrote {output}")


def _format_of(path: Path) -> str:
    found = SUFFIX_FORMATS.get(path.suffix.lower())
    if path.suffix.lower() == ".json":
        found = "jsonl"
    if found not in _VERBS:
        raise UsageError(f"cannot write {path.name}", hint="name it .csv, .jsonl or .parquet")
    return found


@contextmanager
def _reporting() -> Iterator[None]:
    try:
        yield
    except SennitError as error:
        _fail(str(error), error.hint, _status_of(error))
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror}", None, 1)


def _status_of(error: SennitError) -> int:
    if isinstance(error, NotFound):
        return 4
    return 2 if isinstance(error, UsageError) else 1


def _fail(message: str, hint: str | None, status: int) -> NoReturn:
    sys.stderr.write(f"error: {message}\n" + (f"hint: {hint}\n" if hint else ""))
    raise typer.Exit(status)
