"""The backend `browser`: carries out what the protocol's state machine decides.

    scheduler -> start -> input is written -> Machine.ready -> socket
    socket -> Machine.receive -> result is checked by the node -> Report.finished

Sockets belong to `elytra.routes.workers`. One lock orders all calls of the machine and what follows from
them; nothing below it waits for a disk, a process or a socket.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import singledispatchmethod
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from elytra.backends import NodeFiles, NodeParts, Report, TaskInput, TaskSpec, Workers
from elytra.backends.remote.exclusions import Exclusion, Exclusions
from elytra.backends.remote.inputs import InputFile, Inputs
from elytra.backends.remote.instructions import (
    CloseConnection,
    Ended,
    Excluded,
    Instruction,
    Joined,
    Left,
    Progressed,
    Received,
    Rerun,
    Send,
    Started,
)
from elytra.backends.remote.local_runs import LocalRuns, TaskFailed
from elytra.backends.remote.machine import Machine
from elytra.backends.remote.messages import Task, encode, read_from_worker
from elytra.backends.remote.options import RemoteOptions
from elytra.backends.remote.plans import RemotePlan, remote_plan, side_name
from elytra.backends.remote.results import Bad, Checked, Results
from elytra.backends.remote.signing import SignedPaths
from elytra.backends.remote.uploads import Upload, UploadBudget
from elytra.functions.javascript import function_failed, is_javascript
from emsqrt.plan import plan_hash, walk
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import (
    BadInput,
    Conflict,
    InternalError,
    NotFound,
    SennitError,
    Unsupported,
)
from sennit_core.logs import get_logger
from sennit_core.records import Progress

if TYPE_CHECKING:
    from elytra.backends.remote.sessions import SessionInfo

__all__ = ["CloseFrame", "RemoteBackend", "RemoteOptions"]

_TICK_SECONDS = 0.25
_SCHEDULER_LEASES = 4.0
_log = get_logger(__name__)

_NO_FAULT = frozenset(
    ("unsupported", "cancelled", "unavailable", "cap-too-small", "memory-cap-exceeded", "closed")
)
"""What a worker may fail with although others succeed: it has less memory, or fewer functions."""


@dataclass(frozen=True, slots=True)
class CloseFrame:
    """The end of a connection, in place of a message."""

    code: int
    reason: str


Post: TypeAlias = Callable[[bytes | CloseFrame], None]
"""Sends a message on a connection, or closes it; called from any thread, and returns at once."""

Observer: TypeAlias = Callable[[str, "SessionInfo | None"], None]
"""Receives a worker's id, and what it is now; None if it has left."""


@dataclass(slots=True, eq=False)
class _Run:
    """An attempt that has not ended."""

    task: TaskSpec
    files: NodeFiles
    report: Report
    worker: str
    token: str
    # What it holds until its end: the input's file.
    held: ExitStack = field(default_factory=ExitStack)
    # Set when its input is ready.
    plan: RemotePlan | None = None
    input: InputFile | None = None
    # Whether a PUT is being received.
    is_uploading: bool = False

    @property
    def function(self) -> str | None:
        """The label of its first JavaScript function, which the node cannot run; None if it has none."""
        steps = (each for each in walk(self.task.plan) if is_javascript(each))
        return next((str(each.options["label"]) for each in steps), None)


class RemoteBackend:
    """Runs tasks on workers that connect to the node.

    Args:
        node: The node's lake and executors.
        options: How workers are used.
        clock: Source of time.
    """

    name: ClassVar[str] = "browser"

    def __init__(
        self, node: NodeParts, options: RemoteOptions | None = None, clock: Clock = SYSTEM
    ) -> None:
        self.options = options or RemoteOptions()
        self._clock = clock
        folder = node.lake.folder / "remote"
        shutil.rmtree(folder / "results", ignore_errors=True)
        self._runs = LocalRuns(node)
        self._inputs = Inputs(folder / "inputs", self._runs, self.options.input_bytes)
        self._results = Results(folder / "results", self._runs)
        self._uploads = UploadBudget(self.options.limits.uploads_bytes_max)
        self._paths = SignedPaths()
        # Guards all below. Instructions are carried out under it, so in the order of decisions.
        self._lock = threading.RLock()
        self._exclusions = Exclusions(folder / "excluded.json")
        reasons = {token: each.reason for token, each in self._exclusions.all().items()}
        self._machine = Machine(version("sennit-emsqrt"), self.options.limits, excluded=reasons)
        self._live: dict[str, _Run] = {}
        self._posts: dict[int, Post] = {}
        self._last_connection = 0
        self._workers: Workers | None = None
        # Receives the workers that run functions; None if the node sends none.
        self._function_workers: Workers | None = None
        self._observe: Observer = lambda worker, info: None
        # Prepare inputs and check results: each waits for an executor.
        self._threads = ThreadPoolExecutor(node.workers + 2, thread_name_prefix="elytra-remote")
        self._closing = threading.Event()
        # Set while there are workers, so that time has to be reported.
        self._busy = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="elytra-remote", daemon=True)

    # The scheduler's side: see `Backend`

    def open(self, workers: Workers) -> None:
        """Admit workers from now on; see `Backend.open`."""
        self._workers = workers
        self._ticker.start()

    def open_functions(self, workers: Workers) -> None:
        """Report the workers that run functions of others, which get tasks with some (`FunctionWorkers`)."""
        self._function_workers = workers

    def start(self, task: TaskSpec, files: NodeFiles, report: Report, worker: str) -> None:
        """Assign a task to a worker; see `Backend.start`."""
        refusal = _not_sendable(task, files)
        if refusal is not None:
            report.failed(refusal.to_json(), retryable=False)
            return
        with self._lock:
            token = self._machine.token_of_worker(worker) or ""
            run = self._live[task.id] = _Run(task, files, report, worker, token)
            now = self._clock.monotonic()
            self._do_all(self._machine.assign(task.id, worker, task.limits.seconds, now))
            if task.id in self._live:
                self._threads.submit(self._guarded, self._prepare, run)

    def stop(self, task_id: str) -> None:
        """Cancel a task; see `Backend.stop`."""
        with self._lock:
            self._do_all(self._machine.stop(task_id))

    def close(self) -> None:
        """Close all connections, and stop what runs for them."""
        self._closing.set()
        self._busy.set()
        with self._lock:
            self._do_all(self._machine.drain())
        if self._ticker.is_alive():
            self._ticker.join()
        self._runs.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for token, reason in self.excluded().items():  # of which the note was cancelled
            self._exclusions.add(token, Exclusion(reason, self._clock.now()))

    def observe(self, observer: Observer) -> None:
        """Call `observer` when a worker joins, changes or leaves (None), in order; it must be quick."""
        with self._lock:
            self._observe = observer

    # The connections' side

    def connect(self, token: str, post: Post) -> int:
        """Add a connection of a client with a valid token; return its number."""
        with self._lock:
            self._last_connection += 1
            connection = self._last_connection
            if self._closing.is_set() or self._workers is None:
                post(CloseFrame(4503, "the node closes"))
                return connection
            self._posts[connection] = post
            self._do_all(self._machine.connect(connection, token, self._clock.monotonic()))
            self._busy.set()
            return connection

    def receive(self, connection: int, frame: bytes | None) -> None:
        """Handle a frame; None for one that is not binary."""
        try:
            if frame is None:
                raise BadInput("a message of a worker", reason="it is text, not MessagePack")
            message = read_from_worker(frame)
        except BadInput as error:
            with self._lock:
                self._do_all(self._machine.refuse(connection, str(error)))
            return
        with self._lock:
            now = self._clock.monotonic()
            self._do_all(self._machine.receive(connection, message, now))

    def disconnect(self, connection: int) -> None:
        """Remove a connection that has ended."""
        with self._lock:
            self._posts.pop(connection, None)
            self._do_all(self._machine.disconnect(connection, self._clock.monotonic()))

    def disconnect_token(self, token: str) -> None:
        """Close the connections of a token that was revoked."""
        with self._lock:
            self._do_all(self._machine.disconnect_token(token))

    # HTTP

    def input_file(
        self, attempt: str, token: str, *, path: str, expires: int, signature: str
    ) -> InputFile:
        """Return the input of an attempt that a client may read.

        Raises:
            Denied: The address is not signed by this node, or has expired.
            NotFound: The attempt has ended, or is another client's.
        """
        self._paths.check("GET", path, expires, signature, self._clock.now())
        with self._lock:
            run = self._live.get(attempt)
            if run is None or run.input is None or self._machine.token_of(attempt) != token:
                raise NotFound("attempt", attempt, hint="it has ended, or is another worker's")
            return run.input

    def upload(
        self, attempt: str, token: str, *, path: str, expires: int, signature: str
    ) -> Upload:
        """Open the upload of an attempt's result.

        Raises:
            Denied: The address is not signed by this node, or has expired.
            NotFound: The attempt has ended, or is another client's.
            Conflict: Another upload of it is being received.
        """
        self._paths.check("PUT", path, expires, signature, self._clock.now())
        with self._lock:
            run = self._live.get(attempt)
            if run is None or self._machine.token_of(attempt) != token:
                raise NotFound("attempt", attempt, hint="it has ended, or is another worker's")
            if run.is_uploading:
                raise Conflict(f"the result of {attempt} is being uploaded", hint="send it once")
            run.is_uploading = True
            return Upload(
                self._results.place(attempt),
                self.options.limits.result_bytes_max,
                self._uploads,
                alive=lambda: self._touch(run),
                done=lambda: setattr(run, "is_uploading", False),
            )

    def _touch(self, run: _Run) -> bool:
        with self._lock:
            self._do_all(self._machine.touch(run.task.id, self._clock.monotonic()))
            return self._live.get(run.task.id) is run

    # What is shown

    def sessions(self) -> list[SessionInfo]:
        """Return the workers that are connected, or may come back in a moment."""
        with self._lock:
            return self._machine.sessions()

    def excluded(self) -> dict[str, str]:
        """Return the tokens that are not admitted any more, and why."""
        with self._lock:
            return dict(self._machine.excluded)

    def wrong_tokens(self) -> list[str]:
        """Return the excluded tokens whose workers have returned wrong rows."""
        return [token for token, each in self._exclusions.all().items() if each.wrong_rows]

    def readmit(self, token: str) -> None:
        """Admit workers with an excluded token again.

        Raises:
            NotFound: It is not excluded.
        """
        is_known = self._exclusions.remove(token)
        with self._lock:
            if not is_known and token not in self._machine.excluded:
                raise NotFound(
                    "excluded token", token, hint="`platform workers` lists those that are"
                )
            self._machine.readmit(token)

    # Inputs and results, on threads

    def _guarded(self, work: Callable[[_Run], None], run: _Run) -> None:
        try:
            work(run)
        except Exception as problem:  # noqa: BLE001 - it ends the attempt, never the thread
            _log.exception("an attempt failed unexpectedly")
            error = InternalError(f"an attempt failed unexpectedly: {type(problem).__name__}")
            self._fail(run, error, retryable=False)

    def _prepare(self, run: _Run) -> None:
        task = run.task
        try:
            plan = remote_plan(task.plan)
            with ExitStack() as held:
                file = held.enter_context(self._inputs.open(task, run.files, plan))
                with self._lock:
                    if self._live.get(task.id) is not run:
                        return  # it has ended meanwhile
                    run.plan, run.input, run.held = plan, file, held.pop_all()
                    message = self._message(run, plan, file)
                    self._do_all(self._machine.ready(message, self._clock.monotonic()))
        except TaskFailed as failure:
            if failure.code == "too-large":
                self._rerun(run, "unsupported", "a small side is not small")
            else:
                self._fail(run, failure.to_error(), retryable=failure.retryable)
        except SennitError as error:
            self._fail(run, error, retryable=error.retryable)

    def _message(self, run: _Run, plan: RemotePlan, file: InputFile) -> Task:
        task, limits = run.task, self.options.limits
        expires = self._clock.now() + limits.attempt_seconds
        return Task(
            attempt=task.id,
            spec=replace(
                task,
                plan=plan.plan,
                inputs=_streams(task, plan),
                output="arrow",
                copy_bytes_max=0,
                user="",
            ).to_json(),
            plan_hash=plan_hash(plan.plan),
            input=self._paths.sign("GET", f"/api/workers/inputs/{task.id}", expires),
            input_bytes=file.size_bytes,
            input_sha256=file.sha256,
            schema=plan.schema.to_json(),
            upload=self._paths.sign("PUT", f"/api/jobs/{task.job}/partials/{task.id}", expires),
            lease_seconds=limits.lease_seconds,
        )

    def _check(self, run: _Run, sha256: str) -> None:
        assert run.plan is not None
        own = self.options.sample_share if self.options.trust == "sample" else 0.0
        compare = self.options.chance() < max(own, run.files.check_share) and run.function is None
        try:
            checked = self._results.check(
                run.task, run.files, run.plan.schema, sha256, compare=compare
            )
        except Bad as bad:
            error = BadInput("the result of a remote worker", reason=str(bad))
            self._fail(run, error, retryable=True, fault=str(bad))
        except TaskFailed as failure:
            self._fail(run, failure.to_error(), retryable=failure.retryable)
        else:
            self._finish(run, checked)

    def _rerun(self, run: _Run, code: str, message: str) -> None:
        """Run what a worker could not: an error of the plan is then the node's own."""
        if run.function is not None:
            # The node cannot find out whose fault it is: other workers try, and then the job fails.
            self._fail(run, function_failed(run.function, code, message), retryable=True)
            return
        try:
            result = self._results.run_here(run.task, run.files)
        except TaskFailed as failure:
            self._fail(run, failure.to_error(), retryable=failure.retryable)
        else:
            fault = None if code in _NO_FAULT else f"it failed with {code!r} where the node did not"
            self._finish(run, Checked(result), is_of_worker=False, fault=fault)

    def _finish(
        self, run: _Run, checked: Checked, *, is_of_worker: bool = True, fault: str | None = None
    ) -> None:
        wrong = None if checked.mismatch is None else f"wrong rows: {checked.mismatch}"
        if wrong is not None:
            # Durable before anything follows from it: a restart must not use results of this token.
            self._exclusions.add(run.token, Exclusion(wrong, self._clock.now(), wrong_rows=True))
        with self._lock:
            is_live = self._live.pop(run.task.id, None) is run
            if wrong is not None:
                # Before this attempt ends, whose result is the node's and may complete the job.
                assert self._workers is not None
                self._workers.discredited(run.token)
            if is_live:
                # Before its worker leaves: the scheduler drops results of workers that have left.
                run.report.finished(_reported(run, checked, is_of_worker=is_of_worker))
                counts = fault is None and wrong is None
                self._do_all(
                    self._machine.conclude(run.task.id, run.token, counts=counts, fault=fault)
                )
            else:
                run.files.output.unlink(missing_ok=True)
            if wrong is not None:
                _log.warning("the worker %s has returned %s", run.worker, wrong)
                self._do_all(self._machine.exclude(run.token, wrong))
        if is_live:
            self._release(run)

    def _fail(
        self, run: _Run, error: SennitError, *, retryable: bool, fault: str | None = None
    ) -> None:
        with self._lock:
            if self._live.pop(run.task.id, None) is run:
                # First: a worker that is excluded for it leaves before the task is tried again.
                self._do_all(
                    self._machine.conclude(run.task.id, run.token, counts=False, fault=fault)
                )
                run.report.failed(error.to_json(), retryable=retryable)
        self._release(run)

    def _release(self, run: _Run) -> None:
        run.held.close()
        self._results.drop(run.task.id)
        self._uploads.remove(self._results.place(run.task.id))

    # Instructions of the machine

    def _do_all(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            self._do(instruction)

    @singledispatchmethod
    def _do(self, instruction: object) -> None:
        raise TypeError(f"not an instruction: {instruction!r}")

    @_do.register
    def _(self, instruction: Send) -> None:
        post = self._posts.get(instruction.connection)
        if post is not None:
            post(encode(instruction.message))

    @_do.register
    def _(self, instruction: CloseConnection) -> None:
        post = self._posts.pop(instruction.connection, None)
        if post is not None:
            post(CloseFrame(instruction.code, instruction.reason))

    @_do.register
    def _(self, instruction: Joined) -> None:
        assert self._workers is not None
        # Longer than the lease of a session, which ends a worker that stalls: the node checks a result
        # meanwhile, which is no progress of the worker. With a lease, the scheduler also gives slow
        # tasks to a second worker, and none to one that fails what others finish.
        lease_seconds = _SCHEDULER_LEASES * self.options.limits.lease_seconds
        worker, slots, cached = instruction.worker, instruction.slots, instruction.cached
        if self._function_workers is not None:
            # One of its slots, if it has several: a worker in JavaScript has one more than threads.
            functions = 1 if instruction.functions and slots > 1 else 0
            self._function_workers.joined(worker, functions, cached, lease_seconds)
            slots -= functions
        self._workers.joined(worker, slots, cached, lease_seconds)
        for info in self._machine.sessions():
            if info.id == instruction.worker:
                self._observe(info.id, info)

    @_do.register
    def _(self, instruction: Left) -> None:
        assert self._workers is not None
        self._workers.left(instruction.worker)
        if self._function_workers is not None:
            self._function_workers.left(instruction.worker)
        self._observe(instruction.worker, None)

    @_do.register
    def _(self, instruction: Started) -> None:
        run = self._live.get(instruction.attempt)
        if run is not None:
            run.report.started()

    @_do.register
    def _(self, instruction: Progressed) -> None:
        run = self._live.get(instruction.attempt)
        if run is not None and run.input is not None:
            size = run.input.size_bytes
            done = min(instruction.bytes_done, size)
            run.report.progressed(Progress(0, 1, done, size, phase="remote"))

    @_do.register
    def _(self, instruction: Ended) -> None:
        run = self._live.pop(instruction.attempt, None)
        if run is None:
            return
        run.report.failed(instruction.error.to_json(), retryable=instruction.retryable)
        # Not here: to stop an execution, and to remove files, waits for locks of others.
        self._threads.submit(self._abandon, run)

    @_do.register
    def _(self, instruction: Received) -> None:
        run = self._live.get(instruction.attempt)
        if run is None:
            return

        def check(run: _Run) -> None:
            if instruction.data is not None:
                self._results.store(run.task.id, instruction.data)
            self._check(run, instruction.sha256)

        self._threads.submit(self._guarded, check, run)

    @_do.register
    def _(self, instruction: Rerun) -> None:
        run = self._live.get(instruction.attempt)
        if run is not None:
            _log.info("a worker failed: %s: %s", instruction.code, instruction.message[:200])
            code, message = instruction.code, instruction.message
            self._threads.submit(self._guarded, lambda run: self._rerun(run, code, message), run)

    @_do.register
    def _(self, instruction: Excluded) -> None:
        _log.warning("a worker's token is excluded: %s", instruction.reason)
        exclusion = Exclusion(instruction.reason, self._clock.now())
        # Not here: it waits for the disk. Wrong rows were noted before.
        self._threads.submit(self._exclusions.add, instruction.token, exclusion)

    def _abandon(self, run: _Run) -> None:
        self._inputs.stop(run.task)
        self._results.stop(run.task.id)
        self._release(run)

    # Time

    def _tick(self) -> None:
        while not self._closing.is_set():
            self._busy.wait()
            if self._closing.wait(_TICK_SECONDS):
                return
            with self._lock:
                self._do_all(self._machine.tick(self._clock.monotonic()))
                if not self._machine.is_active:
                    self._busy.clear()


def _reported(run: _Run, checked: Checked, *, is_of_worker: bool) -> dict[str, Any]:
    """Return a result with what its worker read, and with the token if the rows are the worker's."""
    rows_read = 0 if run.input is None else run.input.rows
    result = {**checked.result, "manifest": {**checked.result["manifest"], "rowsIn": rows_read}}
    if is_of_worker and checked.mismatch is None:
        result["token"] = run.token
    return result


def _streams(task: TaskSpec, plan: RemotePlan) -> tuple[TaskInput, ...]:
    """Return the streams of a task's file, in their order: the shard's, then those of small sides."""
    (shard,) = (each for each in task.inputs if each.name == plan.name)
    names = map(side_name, range(len(plan.sides)))
    return (shard, *(TaskInput(name, "partial", name) for name in names))


def _not_sendable(task: TaskSpec, files: NodeFiles) -> SennitError | None:
    """Return why a task must not leave the node; also checked when the job is submitted."""
    kinds = {each.kind for each in task.inputs}
    if kinds != {"shard"} or files.sources or files.memory or files.secret is not None:
        return Unsupported(
            "views, encrypted datasets and what a policy shows are not sent to remote workers",
            hint='use engine "local"',
        )
    return None
