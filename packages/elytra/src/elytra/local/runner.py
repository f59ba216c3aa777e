"""Run plans on this machine: EM-√ in executor processes, Python functions in this process."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elytra.client.job_handle import Job
from elytra.client.result import Result
from elytra.local.derived import Derivation, DerivedSource
from elytra.local.jobs import LocalJobs
from elytra.local.run import LocalRun
from emsqrt.engine import Engine
from emsqrt.plan import Files, FileTarget, Plan, Scan, Sink, check, rewrite
from emsqrt.spill.area import RunFolder
from emsqrt.spill.placement import default_spill_dir
from sennit_core.errors import Closed, Unsupported
from sennit_core.ids import new_id

if TYPE_CHECKING:
    import pyarrow as pa

    from emsqrt.executor.execution import Execution

LOCAL_ENGINES = ("auto", "local")
_FORMATS = {"csv": "csv", "json": "jsonl", "parquet": "parquet"}


class LocalRunner:
    """Runs the pipelines of one session.

    Args:
        engine: Runs plans in processes of its own, under its cap.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # Locked by this process: a later run removes the folder of one that was killed.
        self._folder = RunFolder(engine.config.spill_dir or default_spill_dir())
        self._jobs = LocalJobs(engine, self.open, self.new_file)
        self._owned = ExitStack()
        self._owned.callback(self._folder.close)
        self._owned.enter_context(engine)  # keeps its executors between runs
        self._owned.callback(self._jobs.close)
        self._closed = False
        atexit.register(
            self.close
        )  # for a session that is not closed: processes and files end here

    @property
    def folder(self) -> Path:
        """The folder of the session's files."""
        return self._folder.folder

    def new_file(self) -> Path:
        """Return the path of a new file of the session.

        Raises:
            Closed: The session is closed.
        """
        if self._closed:
            raise _closed()
        return self._folder.folder / f"{new_id()}.arrow"

    def close(self) -> None:
        """Stop running jobs, end the executors and delete the session's files."""
        self._closed = True
        atexit.unregister(self.close)
        self._owned.close()

    # What a pipeline uses

    def run(
        self,
        plan: Plan,
        *,
        timeout_seconds: float | None = None,
        **options: Any,
    ) -> Result:
        """Run a plan and return its whole result; the time limit includes Python functions."""
        run = LocalRun(self.engine, _mem_cap(**options), timeout_seconds)
        with self.open(plan, run) as execution:
            import pyarrow as pa  # while the executor, which imports it too, starts

            batches = list(execution.batches())
            manifest = execution.result()
        return Result(pa.Table.from_batches(batches, check(plan).to_arrow()), manifest)

    def submit(self, plan: Plan, **options: Any) -> Job:
        """Start a plan on a thread of this process; the job ends with the session."""
        return self._jobs.start(plan, _mem_cap(**options))

    def batches(self, plan: Plan) -> Iterator[pa.RecordBatch]:
        """Run a plan and yield its batches as they are computed."""
        with self.open(plan, LocalRun(self.engine)) as execution:
            yield from execution.batches()

    def write(self, form: str, path: str | os.PathLike[str], plan: Plan) -> Path:
        """Run a plan whose rows the engine itself writes to a file; it appears when complete.

        CSV to CSV runs without pyarrow, in a process of some MB.
        """
        return self.write_to(FileTarget(str(Path(path).absolute()), _FORMATS[form]), plan)

    def write_to(self, target: FileTarget, plan: Plan) -> Path:
        """Run a plan whose rows the engine writes as a target says."""
        with ExitStack() as held:
            self.engine.run(Sink(self._bound(plan, LocalRun(self.engine), held), target))
        return Path(target.path)

    @contextmanager
    def open(self, plan: Plan, run: LocalRun) -> Iterator[Execution]:
        """Execute a plan, after the derived sources that it reads."""
        with ExitStack() as held:
            yield held.enter_context(run.open(self._bound(plan, run, held)))

    def _bound(self, plan: Plan, run: LocalRun, held: ExitStack) -> Plan:
        """Compute the derived sources of a plan, and return the plan over their files."""
        if self._closed:
            raise _closed()

        def to_file(node: Plan) -> Plan:
            if not (isinstance(node, Scan) and isinstance(node.source, DerivedSource)):
                return node
            derivation = node.source.derivation
            assert derivation is not None, "only derived_scan makes such sources"
            path = self._rows_of(derivation, run, held)
            return replace(node, source=Files((str(path),), "arrow"))

        return rewrite(plan, to_file)

    def _rows_of(self, made: Derivation, run: LocalRun, held: ExitStack) -> Path:
        """Write the rows of a derived source to a file, which `held` deletes unless it is kept."""
        if not made.keep:
            path = self.new_file()
            held.callback(path.unlink, missing_ok=True)
            self._compute(made, path, run)
            return path
        with made.lock:
            if made.kept is None:
                path = self.new_file()
                self._compute(made, path, run)
                made.keep_at(path)
            assert made.kept is not None
            return made.kept

    def _compute(self, made: Derivation, path: Path, run: LocalRun) -> None:
        import pyarrow as pa

        with (
            self.open(made.upstream, run) as execution,
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_file(file, made.schema.to_arrow()) as writer,
        ):
            for batch in made.batches(execution.batches()):
                writer.write_batch(batch)
                run.check()


def _mem_cap(
    engine: str = "auto",
    memCap: str | int | None = None,  # noqa: N803 - the options have the names that nodes use
    **others: object,
) -> str | int | None:
    """Return the memory cap of the options of a run, and refuse another engine, or other options."""
    if others:
        raise Unsupported(
            f"without a node, a run has no option {', '.join(sorted(others))}",
            hint="leave it out, or use Elytra(url)",
        )
    if engine not in LOCAL_ENGINES:
        raise Unsupported(
            f'engine "{engine}" does not run without a node',
            hint='use "local", or Elytra(url) with a dataset of the node',
        )
    return memCap


def _closed() -> Closed:
    return Closed("the local session", hint="keep it open until the results were read")
