"""A remote worker in Python: the model of the worker protocol, with faults on request.

It runs tasks with EM-√ over a real WebSocket and real HTTP. As a program, for tests that kill it:

    SENNIT_TOKEN=… python -m elytra.testing.scripted_worker URL
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import httpx
import pyarrow as pa
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from elytra.backends.remote.messages import (
    INLINE_BYTES_MAX,
    SUBPROTOCOL,
    VERSION,
    Ack,
    Cancel,
    Credit,
    Drain,
    Failed,
    Hello,
    Message,
    Partial,
    Renew,
    Task,
    Welcome,
    encode,
    read_from_node,
)
from elytra.backends.task_spec import TaskSpec, bound_plan
from emsqrt.in_process import run_here
from emsqrt.plan import FileTarget, Sink
from sennit_core.errors import SennitError

__all__ = ["Fault", "ScriptedWorker"]

Fault: TypeAlias = Literal[
    "die", "stall", "wrong-rows", "garbage", "other-columns", "other-plan", "other-attempt", "repeat",
    "reconnect", "fail", "upload", "unsent-upload", "drain",
]  # fmt: skip
"""What a worker does with a task instead of running it and sending the result:

| fault | behaviour |
|---|---|
| `die` | closes its socket without a word, and does not come back |
| `stall` | accepts the task and sends nothing |
| `wrong-rows` | returns rows of the right form with a wrong value |
| `garbage` | returns bytes that are not Arrow IPC |
| `other-columns` | returns a stream with other columns |
| `other-plan` | returns the hash of another plan |
| `other-attempt` | returns the result for an attempt of no task of its own |
| `repeat` | sends the result twice |
| `reconnect` | loses the connection before it sends the result, and resumes |
| `fail` | reports an error |
| `upload` | uploads the result, however short it is |
| `unsent-upload` | says that it has uploaded the result, and has not |
| `drain` | sends `drain` after the result |
"""

_CAP_BYTES = 256 << 20
_RETRY_SECONDS = 0.05
_RENEW_SECONDS = 0.3
_FINAL_CLOSES = frozenset((4400, 4403, 4406, 4426, 4429))


@dataclass
class ScriptedWorker:
    """A worker in threads of this process; a context manager.

    Args:
        url: The node's address.
        token: With the role `worker`.
        slots: Tasks at the same time.
        faults: What it does with its tasks, by their number from 0; others are run.
        fault: What it does with all others.
        engine: What it says of its engine.
        headers: Of the WebSocket's request.
        functions: Whether it says that it runs functions of others.
    """

    url: str
    token: str
    slots: int = 1
    faults: Mapping[int, Fault] = field(default_factory=dict)
    fault: Fault | None = None
    engine: str = field(default_factory=lambda: f"emsqrt {version('sennit-emsqrt')}")
    headers: Mapping[str, str] = field(default_factory=dict)
    functions: bool = False

    def __post_init__(self) -> None:
        self.id = ""
        # Why the node has closed the connection for good.
        self.close_code: int | None = None
        self.close_reason = ""
        self.tasks_seen: list[str] = []
        self.acknowledged: list[str] = []
        self.joined = threading.Event()
        self.ended = threading.Event()
        self._resume: str | None = None
        self._cached: list[str] = []
        self._lock = threading.Lock()
        # Attempts that are computed, and results that the node has not acknowledged.
        self._running: set[str] = set()
        self._unacknowledged: dict[str, Message] = {}
        self._cancelled: set[str] = set()
        self._socket: ClientConnection | None = None
        self._stopping = False
        self._http = httpx.Client(
            base_url=self.url, timeout=30, headers={"authorization": f"Bearer {self.token}"}
        )
        self._thread = threading.Thread(target=self._run, name="scripted-worker", daemon=True)

    @property
    def running_count(self) -> int:
        """How many tasks it computes."""
        return len(self._running)

    def start(self) -> Self:
        """Connect, and run tasks until it is stopped."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Disconnect and wait."""
        self._stopping = True
        self._disconnect()
        self._thread.join()
        self._http.close()

    def die(self) -> None:
        """Disconnect as a killed process does: without a close frame, for ever."""
        self._stopping = True
        self._disconnect(abrupt=True)
        self._http.close()

    def wait(self, seconds: float = 20.0) -> Self:
        """Wait until the node knows it."""
        assert self.joined.wait(seconds), f"not admitted: {self.close_code} {self.close_reason}"
        return self

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Connection

    def _run(self) -> None:
        try:
            while not self._stopping and self.close_code not in _FINAL_CLOSES:
                self._connected_once()
                time.sleep(_RETRY_SECONDS)
        finally:
            self.ended.set()

    def _connected_once(self) -> None:
        address = self.url.replace("http", "ws", 1) + "/api/workers"
        protocols = [SUBPROTOCOL, f"sennit-token.{self.token}"]
        try:
            with connect(
                address, subprotocols=protocols, compression=None, max_size=None,  # type: ignore[arg-type]
                additional_headers=dict(self.headers), open_timeout=10,
            ) as socket:  # fmt: skip
                self._socket = socket
                self._greet(socket)
                for frame in socket:
                    assert isinstance(frame, bytes)
                    self._receive(read_from_node(frame))
        except ConnectionClosed as closed:
            if closed.rcvd is not None:
                self.close_code, self.close_reason = closed.rcvd.code, closed.rcvd.reason
        except InvalidStatus as refusal:
            self.close_code, self.close_reason = 4403, str(refusal)
        except OSError:
            pass  # the node is not up
        finally:
            self._socket = None

    def _greet(self, socket: ClientConnection) -> None:
        with self._lock:
            attempts = tuple({*self._running, *self._unacknowledged})
        hello = Hello(
            VERSION, self.engine, "python", self.slots, tuple(self._cached), self._resume, attempts,
            self.functions,
        )  # fmt: skip
        socket.send(encode(hello))

    def _send(self, message: Message) -> None:
        socket = self._socket
        if socket is not None:
            with suppress(ConnectionClosed):
                socket.send(encode(message))

    def send_raw(self, frame: bytes | str) -> None:
        """Send a frame as it is."""
        assert self._socket is not None
        self._socket.send(frame)

    def _disconnect(self, *, abrupt: bool = False) -> None:
        socket = self._socket
        if socket is None:
            return
        if abrupt:
            with suppress(OSError):
                socket.socket.shutdown(2)
        else:
            socket.close()

    # Messages

    def _receive(self, message: Message) -> None:
        match message:
            case Welcome():
                self._welcome(message)
            case Task():
                self._accept(message)
            case Cancel(attempt=attempt):
                self._cancelled.add(attempt)
                self._unacknowledged.pop(attempt, None)
                if attempt not in self._running:
                    self._send(Credit(1))
            case Ack(attempt=attempt):
                self.acknowledged.append(attempt)
                if self._unacknowledged.pop(attempt, None) is not None:
                    self._send(Credit(1))
            case Drain():
                pass  # the node closes the connection next

    def _welcome(self, message: Welcome) -> None:
        self.id, self._resume = message.worker, message.resume
        with self._lock:
            for attempt in list(self._unacknowledged):
                if attempt not in message.attempts:
                    del self._unacknowledged[attempt]
            self._cancelled |= self._running - set(message.attempts)
            again = list(self._unacknowledged.values())
            free = self.slots - len(self._running | self._unacknowledged.keys())
        for result in again:
            self._send(result)
        if free > 0:
            self._send(Credit(free))
        self.joined.set()

    def _accept(self, task: Task) -> None:
        number = len(self.tasks_seen)
        self.tasks_seen.append(task.attempt)
        fault = self.faults.get(number, self.fault)
        if fault == "die":
            self.die()
        elif fault != "stall":
            self._running.add(task.attempt)
            name = f"scripted-task-{number}"
            threading.Thread(target=self._work, args=(task, fault), name=name, daemon=True).start()

    # Tasks

    def _work(self, task: Task, fault: Fault | None) -> None:
        try:
            with self._renewing(task.attempt):
                result = self._result(task, fault)
        except (SennitError, httpx.HTTPError, AssertionError, RuntimeError) as error:
            # The last two: the input is damaged, the client was closed by `die`.
            code = error.code if isinstance(error, SennitError) else "unavailable"
            result = Failed(task.attempt, code, str(error)[:500])
        with self._lock:
            self._running.discard(task.attempt)
            if task.attempt in self._cancelled:
                self._send(Credit(1))
                return
            self._unacknowledged[task.attempt] = result
        if fault == "reconnect":
            self._disconnect(abrupt=True)  # it is sent after the next welcome
            return
        self._send(result)
        if fault == "repeat":
            self._send(result)
        if fault == "drain":
            self._send(Drain())

    @contextmanager
    def _renewing(self, attempt: str) -> Iterator[None]:
        """Renew the lease of an attempt.

        By time, unlike a runtime's loop that computes: a test's machine may be busy for seconds.
        """
        done = threading.Event()

        def renew() -> None:
            count = 0
            while True:
                self._send(Renew(attempt, count))
                count += 1
                if done.wait(_RENEW_SECONDS):
                    return

        thread = threading.Thread(target=renew, name="scripted-renew", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _result(self, task: Task, fault: Fault | None) -> Message:
        if fault == "fail":
            return Failed(task.attempt, "internal", "a fault on request")
        data = self._compute(task)
        data = _changed(data, fault)
        sha256 = hashlib.sha256(data).hexdigest()
        inline = len(data) <= INLINE_BYTES_MAX and fault not in ("upload", "unsent-upload")
        if not inline and fault != "unsent-upload":
            sent = self._http.put(task.upload, content=data, headers={"x-sha256": sha256})
            sent.raise_for_status()
        return Partial(
            f"{task.attempt[:-1]}9" if fault == "other-attempt" else task.attempt,
            "0" * 64 if fault == "other-plan" else task.plan_hash,
            task.input_sha256,
            self.engine,
            sha256,
            data if inline else None,
        )

    def _compute(self, task: Task) -> bytes:
        """Fetch the inputs, run the plan, and return the rows as an Arrow IPC stream."""
        spec = TaskSpec.from_json(task.spec)
        with tempfile.TemporaryDirectory(prefix="scripted-worker-") as name:
            folder = Path(name)
            output = folder / "output.arrows"
            for each, stream in zip(spec.inputs, _streams(self._fetch(task)), strict=True):
                (folder / each.name).write_bytes(stream)
            self._cached = [*self._cached[-99:], spec.inputs[0].id]
            plan = bound_plan(spec, lambda name: str(folder / name), output)
            run_here(
                Sink(plan.input, FileTarget(str(output), "arrow")), _CAP_BYTES, folder / "spill"
            )
            return output.read_bytes()

    def _fetch(self, task: Task) -> bytes:
        """Fetch the input in two ranges, as a worker does that continues a download."""
        half = task.input_bytes // 2
        pieces = [
            self._http.get(task.input, headers={"range": f"bytes={span}"}).raise_for_status()
            for span in (f"0-{half - 1}", f"{half}-")
        ]
        data = b"".join(piece.content for piece in pieces)
        assert hashlib.sha256(data).hexdigest() == task.input_sha256, "the input is damaged"
        return data


def _streams(data: bytes) -> Iterator[bytes]:
    """Yield the Arrow IPC streams that an input has, one after the other."""
    source = pa.BufferReader(data)
    while (start := source.tell()) < len(data):
        for _ in pa.ipc.open_stream(source):
            pass
        yield data[start : source.tell()]


def _changed(data: bytes, fault: Fault | None) -> bytes:
    """Return a result that is wrong in the way of a fault."""
    if fault == "garbage":
        return b"no arrow" * 8
    if fault == "other-columns":
        return _written(pa.table({"other": [1, 2]}))
    if fault == "wrong-rows":
        with pa.ipc.open_stream(data) as reader:
            return _written(_wrong(reader.read_all()))
    return data


def _wrong(table: pa.Table) -> pa.Table:
    """Return the table with one value changed; without a number in it, without its last row."""
    for index, column in enumerate(table.schema):
        if pa.types.is_integer(column.type) and table.num_rows:
            values: list[Any] = table.column(index).to_pylist()
            values[0] = (values[0] or 0) + 1
            return table.set_column(index, column, pa.array(values, column.type))
    return table.slice(0, max(0, table.num_rows - 1))


def _written(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def main() -> None:
    """Run a worker until the node closes its connection for good."""
    worker = ScriptedWorker(sys.argv[1], os.environ["SENNIT_TOKEN"]).start()
    worker.ended.wait()


if __name__ == "__main__":
    main()
