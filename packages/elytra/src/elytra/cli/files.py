"""Read a pipeline from a file: Python, plan JSON, or steps in YAML or JSON."""

from __future__ import annotations

import runpy
import traceback
from pathlib import Path
from typing import Any, TypeAlias

from elytra.local.derived import DerivedSource
from elytra.local.session import LocalElytra
from elytra.pipelines.pipeline import Pipeline
from emsqrt.documents import read_document
from emsqrt.plan import DatasetRef, Files, FileTarget, Plan, Sink, scans_of
from sennit_core.errors import NotFound, SennitError, Unsupported, UsageError

Loaded: TypeAlias = tuple[Pipeline, FileTarget | None]
"""A pipeline, and the file that its last step writes, if that is a sink."""

_EXAMPLE = 'def pipeline(local): return local.dataset("trips.csv").filter("miles > 10")'


def open_session(path: Path, mem_cap: str | None) -> LocalElytra:
    """Open the session in which a file runs, with the settings of a document.

    Args:
        path: The file.
        mem_cap: The memory cap of the command line, which wins over the document's.

    Raises:
        UsageError: The document has a setting that a session does not have.
    """
    config = {} if path.suffix == ".py" or not path.exists() else read_document(path).config
    unknown = sorted(set(config) - {"mem_cap_bytes", "spill_dir"})
    if unknown:
        raise UsageError(
            f"{path} sets {unknown[0]}, which a local session does not have",
            hint=f"emsqrt run {path}",
        )
    return LocalElytra(mem_cap or config.get("mem_cap_bytes"), config.get("spill_dir"))


def load_pipeline(path: Path, local: LocalElytra) -> Loaded:
    """Return the pipeline of a file.

    Args:
        path: A Python file with a function `pipeline(local)`; or plan JSON, or steps of EM-√.
        local: The session in which it runs.

    Raises:
        NotFound: There is no such file.
        UsageError: It holds no pipeline, or one over datasets of a node.
    """
    if not path.exists():
        raise NotFound("file", str(path))
    if path.suffix == ".py":
        return _from_python(path, local), None
    document = read_document(path)
    plan, target = document.plan, None
    if isinstance(plan, Sink):
        if not isinstance(plan.target, FileTarget):
            raise UsageError(f"{path}: its last step writes to a stream, not to a file")
        target, plan = plan.target, plan.input
    for scan in scans_of(plan):
        if isinstance(scan.source, DatasetRef):
            raise UsageError(
                f"{path} reads the dataset {scan.source.dataset!r}, which is on a node",
                hint="platform run FILE runs it there",
            )
    return local.pipeline(plan), target


class _PlanningSession(LocalElytra):
    """A session of plans that need not run here, so they may read datasets of a node."""

    def remote(self, dataset: str, snapshot: str | None = None, **place: Any) -> Pipeline:
        return Pipeline.over(self, dataset, snapshot, **place)  # type: ignore[arg-type]


def load_plan(path: Path) -> Plan:
    """Return the plan of a file without opening what it reads, except of Python, which is run.

    Raises:
        NotFound: There is no such file.
        Unsupported: The plan of a Python file has functions that are called with rows, or values in memory.
    """
    if path.suffix != ".py":
        if not path.exists():
            raise NotFound("file", str(path))
        return read_document(path).plan
    with _PlanningSession() as session:
        pipeline, _ = load_pipeline(path, session)
        folder = str(session.folder)
        for scan in scans_of(pipeline.plan):
            is_own = isinstance(scan.source, Files) and scan.source.paths[0].startswith(folder)
            if is_own or isinstance(scan.source, DerivedSource):
                raise Unsupported(
                    f"{path} has values in memory, cached rows or functions that are called with rows",
                    hint="code is made of expressions over files: write the values to a file",
                )
        return pipeline.plan


def _from_python(path: Path, local: LocalElytra) -> Pipeline:
    try:
        make = runpy.run_path(str(path), run_name="elytra_pipeline").get("pipeline")
        found = make(local) if callable(make) else None
    except SennitError:
        raise
    except Exception as problem:
        raise UsageError(_where(problem, path)) from problem
    if not isinstance(found, Pipeline):
        what = "has no function pipeline" if make is None else "its pipeline(local) returns none"
        raise UsageError(f"{path}: {what}", hint=f"write {_EXAMPLE}")
    return found


def _where(problem: Exception, path: Path) -> str:
    """Name the line of the user's file, not those of this program."""
    if isinstance(problem, SyntaxError):
        return f"{path}, line {problem.lineno}: {problem.msg}"
    lines = [
        f.lineno for f in traceback.extract_tb(problem.__traceback__) if f.filename == str(path)
    ]
    line = f", line {lines[-1]}" if lines else ""
    return f"{path}{line}: {type(problem).__name__}: {problem}"
