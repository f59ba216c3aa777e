"""A running query, which leases the shards that it reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias, TypeVar

from lake.distributed.partial import MissingShards, missing_report
from lake.peers.transport.stop import Stop
from sennit_core.errors import (
    CapTooSmall,
    DeadlineExceeded,
    MemoryCapExceeded,
    SennitError,
    Unsupported,
    UsageError,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from emsqrt.executor import Execution
    from lake.distributed.read_repair import Repair
    from sennit_core.records import Progress

T = TypeVar("T")

StartStep: TypeAlias = "Callable[[str, dict[str, Any]], Execution]"

__all__ = ["QueryExecution", "ResultKeeper", "check_parameters"]


class ResultKeeper(NamedTuple):
    """Keeps the result of a query.

    Args:
        bytes_max: The longest result to keep.
        keep: Called with the bytes of a whole result that may be kept, and with the answer.
    """

    bytes_max: int
    keep: Callable[[bytes, dict[str, Any]], None]


class QueryExecution:
    """A query running in one executor or, with EM-√, in two in sequence; a context manager.

    Its shards are kept until it is closed, even if their dataset is deleted. Leaving the context
    cancels the query if it is still running.

    Args:
        start: Starts a step in an executor, with its engine and the step's request members.
        engine: `duckdb`, `emsqrt` or `auto`: DuckDB, then EM-√ if DuckDB runs out of memory before
            the first byte of its result was sent.
        release: Releases the lease on the shards.
        complete: Called with an error before it is raised; returns the error to raise.
        deadline_seconds: Time limit of all steps together, for errors.
        keeper: Keeps the result for a repetition of the query; None if it must not be kept.
        missing: The shards that it leaves out, if its request allows that.
        repair: Called with an error of a step before any output; True runs the step again.
    """

    def __init__(  # noqa: PLR0913 - of three callers, most by keyword
        self,
        start: StartStep,
        engine: str,
        release: Callable[[], None],
        *,
        complete: Callable[[SennitError], SennitError] = lambda error: error,
        deadline_seconds: float | None = None,
        keeper: ResultKeeper | None = None,
        missing: tuple[MissingShards, ...] = (),
        repair: Repair = lambda _error, _stop: False,
    ) -> None:
        self.missing = missing
        self._repair = repair
        self._stop = Stop()  # of repairs
        # True once a piece of the result was handed on: then no step can run again.
        self._has_output = False
        self._start = start
        self._keeper = keeper
        self._complete = complete
        self._deadline_seconds = deadline_seconds
        # None once the lease has ended, so that `close` may be called twice.
        self._release: Callable[[], None] | None = release
        # True while EM-√ may still answer instead of DuckDB: until the first piece of the result
        # was handed on. Half an answer of each engine would be none, since they order equal rows
        # differently.
        self._may_change = engine == "auto"
        self._refusal: SennitError | None = None  # DuckDB's error, while EM-√ is tried
        self._engine = "emsqrt" if engine == "emsqrt" else "duckdb"
        self._lock = threading.Lock()
        self._cancelled = False
        # `duckdb`, or `plan` and then `emsqrt`: the plan is made in one executor, and runs in
        # another that loads neither DuckDB nor sqlglot, whose memory would count against the cap.
        self._step = "plan" if engine == "emsqrt" else "duckdb"
        self._own: dict[str, Any] = {}  # the step's request members, to run it again
        self._execution = start(self._step, self._own)

    @property
    def engine(self) -> str:
        """The engine in use; final once the first piece of the result is available."""
        return self._engine

    @property
    def cache(self) -> str:
        """How the result cache was used: `miss`, or `bypass` if it was not."""
        return "bypass" if self._keeper is None else "miss"

    @property
    def pid(self) -> int:
        """The process id of the executor."""
        return self._execution.pid

    @property
    def progress(self) -> Progress:
        """The current progress."""
        return self._execution.progress

    @property
    def done(self) -> bool:
        """Whether its last step has ended; payloads may still be unread."""
        return self._execution.done and self._step != "plan" and not self._may_change

    def payloads(self) -> Iterator[memoryview]:
        """Yield the result's bytes; each view is valid until the next is requested."""
        pieces = self._pieces(lambda execution: execution.payloads())
        return pieces if self._keeper is None else self._kept(pieces, self._keeper)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the result as Arrow batches (format `arrow` only)."""
        return self._pieces(lambda execution: execution.batches())

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Return `rows`, `bytes`, `truncated`, `columns`, `engine`, `cache`; raise the query's error.

        If shards are left out, `missing` says which.

        Args:
            timeout: Seconds to wait for each step.
        """
        while True:
            try:
                answer = self._execution.result(timeout)
                if self._step != "plan":
                    return self._report(answer)
                self._begin("emsqrt", answer)
            except SennitError as error:
                self._after(error)

    def _report(self, answer: dict[str, Any]) -> dict[str, Any]:
        report = _without_repeatable(answer) | {"cache": self.cache}
        if self.missing:
            report["missing"] = missing_report(self.missing)
        return report

    def cancel(self) -> None:
        """Request cancellation."""
        with self._lock:
            self._cancelled = True
            execution = self._execution
        self._stop.stop()
        execution.cancel()

    def close(self) -> None:
        """Cancel the query if it is running and release its shards; may be called twice."""
        release, self._release = self._release, None
        if release is not None:
            try:
                self.cancel()
                self._execution.close()
            finally:
                release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pieces(self, read: Callable[[Execution], Iterator[T]]) -> Iterator[T]:
        while True:
            try:
                for piece in read(self._execution):
                    self._may_change, self._has_output = False, True
                    yield piece
                if self._step != "plan":
                    self._may_change = False
                    return
                self._begin("emsqrt", self._execution.result())
            except SennitError as error:
                self._after(error)

    def _kept(self, pieces: Iterator[memoryview], keeper: ResultKeeper) -> Iterator[memoryview]:
        """Yield the pieces; keep the result if it was whole, small and repeatable."""
        held: list[bytes] | None = []
        held_bytes = 0
        for piece in pieces:
            held_bytes += len(piece)
            if held is not None and held_bytes <= keeper.bytes_max:
                held.append(bytes(piece))
            else:
                held = None
            yield piece
        answer = self._execution.result()
        if held is not None and answer.get("repeatable"):
            keeper.keep(b"".join(held), _without_repeatable(answer))

    def _after(self, error: SennitError) -> None:
        """Run the step again after a repair, continue with EM-√ if possible, or raise the error."""
        if isinstance(error, DeadlineExceeded):
            raise self._deadline_exceeded() from error
        if not self._has_output and self._repair(error, self._stop):
            self._begin(self._step, self._own)
            return
        if self._refusal is not None and self._step == "plan" and isinstance(error, Unsupported):
            refusal = self._refusal
            refusal.hint = f"EM-√ was tried too: {error}; {refusal.hint or ''}".rstrip("; ")
            raise refusal from error
        if not self._may_change or not isinstance(error, MemoryCapExceeded | CapTooSmall):
            self._may_change = False
            raise self._complete(_with_advice(error))
        self._may_change = False
        self._refusal = error
        self._begin("plan", {})
        self._engine = "emsqrt"

    def _deadline_exceeded(self) -> DeadlineExceeded:
        where = "" if self._execution.pid else " (it was queued for an executor the whole time)"
        return DeadlineExceeded(
            f"the query{where}",
            self._deadline_seconds,
            hint="query less data, or raise the limit: analytics.query_seconds of the node, or "
            "deadlineSeconds of a request by an admin",
        )

    def _begin(self, step: str, own: dict[str, Any]) -> None:
        self._execution.close()
        execution = self._start(step, own)
        with self._lock:
            self._execution, self._step, self._own = execution, step, own
            # A cancellation that came between the two steps counts for the new one.
            cancelled = self._cancelled
        if cancelled:
            execution.cancel()


def _without_repeatable(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an executor's answer without what it says about keeping it."""
    return {key: value for key, value in answer.items() if key != "repeatable"}


def _with_advice(error: SennitError) -> SennitError:
    """Return the error; a memory error of any process gets a hint for the user."""
    if not isinstance(error, MemoryCapExceeded) or "--memory" in (error.hint or ""):
        return error
    return MemoryCapExceeded(
        cap_bytes=error.cap_bytes,
        asked_bytes=error.asked_bytes,
        what=error.what.replace("lake.sql", "the query"),
        hint="start the node with more --memory, or query fewer or shorter rows",
    )


def check_parameters(value: Any, place: str = "params") -> None:
    """Refuse parameters that cannot be sent to an executor.

    Raises:
        UsageError: An integer is beyond 64 bits, or a text holds half a surrogate pair.
    """
    match value:
        case bool():
            return
        case int() if not -(1 << 63) <= value < 1 << 64:
            raise UsageError(
                f"{place}: an integer beyond 64 bits", hint="pass it as text, and CAST it in SQL"
            )
        case str() if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise UsageError(f"{place}: text holds half a surrogate pair")
        case list():
            for index, each in enumerate(value):
                check_parameters(each, f"{place}[{index}]")
        case dict():
            for name, each in value.items():
                check_parameters(name, f"a name in {place}")
                check_parameters(each, f"{place}.{name}")
