"""Run a generator in another process and iterate here over the values that it yields."""

from __future__ import annotations

import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from sennit_core.errors import Corrupt
from strand import layout
from strand.closing import Closing
from strand.errors import ConsumerDied, ProducerDied, RemoteFailure, StrandAbortError
from strand.reading import GroupReader, has_record
from strand.ring import Ring, open_ring
from strand.schema import BLOCKS, StrandSchema
from strand.view import StrandView
from strand.writer import StrandWriter

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess

__all__ = ["Pipe", "pipe"]

_LOOSE_KINDS = ("bytes", "json", "array")  # their values may be lists or arrays
_TRACE_CHARS_MAX = 16384  # an error report stays below the capacity of a kernel pipe
_CAUSE_BYTES_MAX = 16384


def pipe(
    function: Callable[..., Iterable[Any]],
    /,
    *args: Any,
    schema: StrandSchema | None = None,
    records: int = 65536,
    heap: str | int = "16MiB",
    context: str | BaseContext | None = None,
    **kwargs: Any,
) -> Pipe:
    """Run a generator function in another process and iterate here over its values.

        with strand.pipe(read_batches, "trips.parquet") as batches:
            for batch in batches:
                ...

    The first value determines the kind of the stream; later values must be of the same kind.

    | the generator yields | the iteration yields |
    |---|---|
    | an Arrow batch or table | Arrow batches |
    | bytes-like objects | bytes |
    | with a schema: tuples, mappings of values, or lists of these | tuples |
    | with a schema: numpy structured arrays | numpy structured arrays |
    | with a schema: mappings of columns, Arrow batches or tables | Arrow batches |

    All values are copies and stay valid. A mapping counts as columns when a scalar field has a list
    or an array. Arrays and batches may be split or joined differently from the yielded ones.

    Args:
        function: the generator function; with spawn and forkserver it must be importable.
        args: its arguments.
        schema: the typed records it yields; None for Arrow batches and bytes.
        records: slots of the ring between the processes, a power of two.
        heap: its bytes for strings, arrays and payloads, a power of two.
        context: a start method ("fork", "spawn", "forkserver") or a context of multiprocessing;
            by default that of multiprocessing.
        kwargs: its keyword arguments.

    Raises:
        UsageError: parameters that make no ring.
        StorageFull: no room in shared memory.
    """
    import multiprocessing

    chosen = context
    if context is None or isinstance(context, str):
        chosen = multiprocessing.get_context(context)
    ring = open_ring(BLOCKS if schema is None else schema, records, heap)
    try:
        return Pipe(chosen, ring, (function, args, kwargs))
    except BaseException:
        ring.close()
        raise


class Pipe(Closing):
    """Iterator over the values of a generator in another process; created by `strand.pipe`.

    Iterate over it once. Leaving its `with`, or dropping it, before the end stops the other process:
    writing the next value fails there, the generator is closed, so that `finally` blocks run, and
    the process is joined. If the generator yields no value for `patience_seconds`, the process gets
    SIGTERM, which closes the generator likewise, and after the same time again SIGKILL.
    """

    patience_seconds: float = 5.0
    """Time limit of each step of stopping the process; read when a pipe is created."""

    def __init__(self, context: Any, ring: Ring, call: tuple[Any, ...]) -> None:
        """Use `strand.pipe`."""
        from multiprocessing import util

        control, reports = context.Pipe(duplex=False)
        inherited = control if context.get_start_method() == "fork" else None
        self._process = context.Process(
            target=_produce, args=(ring, reports, inherited, *call), name="strand-pipe"
        )
        view = _PipeView(ring, self._process)
        try:
            self._process.start()
        except BaseException:
            view.close()
            control.close()
            raise
        finally:
            reports.close()
        # Runs once: from close(), when this object is collected, or before multiprocessing joins its
        # children at the end of the program, whichever is first.
        self._end = util.Finalize(
            self,
            _reap,
            (ring, view, control, self._process, self.patience_seconds),
            exitpriority=10,
        )
        self._items = _receive(
            view, control, self._end
        )  # does not refer to self: no reference cycle

    @property
    def pid(self) -> int | None:
        """The pid of the other process; None after it was joined."""
        return None if self.closed else self._process.pid

    @property
    def closed(self) -> bool:
        """Whether the process was joined and the ring released."""
        return not self._end.still_active()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return next(self._items)

    def close(self) -> None:
        """Stop the other process if it still runs, join it, and release the ring."""
        self._items.close()
        self._end()


class _PipeView(StrandView):
    """A view that also checks its producer's process, which may die before it is the producer."""

    def __init__(self, ring: Ring, process: BaseProcess) -> None:
        super().__init__(ring)
        self._process = process

    def find_failure(self) -> Corrupt | ProducerDied | StrandAbortError | None:
        code = self._process.exitcode  # before the status: a process sets it, then ends
        failure = super().find_failure()
        if failure is None and code is not None and self._status() < layout.EOS:
            failure = ProducerDied(what="the process of a pipe", pid=self._process.pid or 0)
        if isinstance(failure, ProducerDied) and code is not None:
            failure.add_note(f"its exit code is {code}; its standard error may say more")
        return failure


# ---- in this process ----------------------------------------------------------------------------


def _receive(view: StrandView, control: Connection, end: Callable[[], Any]) -> Generator[Any]:
    """Yield the received values; call `end` however the iteration ends."""
    try:
        if has_record(GroupReader(view), 0, None):
            yield from _READINGS[control.recv()](view)
    except StrandAbortError:
        failure = _find_failure(control)
        if failure is None:
            raise
        raise failure from failure.__cause__
    finally:
        end()


def _find_failure(control: Connection) -> RemoteFailure | None:
    """Return the error that the other process sent after it aborted its stream, if any."""
    try:
        report = control.recv()
        while isinstance(report, str):  # the kind of the stream, not received yet
            report = control.recv()
    except (EOFError, OSError):
        return None
    kind, message, trace, pickled = report
    failure = RemoteFailure(
        f"{kind}: {message}" if message else kind, kind=kind, remote_traceback=trace
    )
    with suppress(Exception):  # an error that cannot be unpickled here stays text
        failure.__cause__ = pickle.loads(pickled)
    return failure


def _read_arrays(view: StrandView) -> Iterator[Any]:
    return (array.copy() for array in view.record_views())


def _read_payloads(view: StrandView) -> Iterator[Any]:
    return (bytes(payload) for payload in view.payloads())


_READINGS: dict[str, Callable[[StrandView], Iterator[Any]]] = {
    "arrays": _read_arrays,
    "batches": StrandView.batches,
    "columns": StrandView.batches,
    "payloads": _read_payloads,
    "rows": iter,
}


def _reap(
    ring: Ring,
    view: StrandView,
    control: Connection,
    process: BaseProcess,
    patience_seconds: float,
) -> None:
    """End the other process and release the ring and the connection."""
    try:
        if view.status not in ("eos", "error"):
            ring.signal_abort()
        for stop in (None, process.terminate, process.kill):
            if stop is not None:
                stop()
            process.join(patience_seconds)
            if process.exitcode is not None:
                break
        process.close()
    finally:
        view.close()
        control.close()
        ring.close()


# ---- in the other process -----------------------------------------------------------------------


def _produce(
    ring: Ring,
    reports: Connection,
    inherited: Connection | None,
    function: Callable[..., Iterable[Any]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Run the generator and write its values: the main function of the other process."""
    if inherited is not None:
        inherited.close()  # the parent's end, inherited through fork
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that `finally` blocks run
    with ring, reports:
        writer = ring.producer()
        try:
            _write_all(writer, reports, function(*args, **kwargs))
            writer.finalize()
        except (StrandAbortError, ConsumerDied) as left:  # the parent stopped reading
            writer.abort(str(left))
        except BaseException as error:  # noqa: BLE001 - reported to the parent
            _report(error, writer, reports)
            raise SystemExit(1) from None


def _write_all(writer: StrandWriter, reports: Connection, items: Iterable[Any]) -> None:
    kind = ""
    try:
        for item in items:
            found = _kind_of(item, writer)
            if not kind:
                kind = found
                reports.send(kind)
            elif found != kind:
                raise TypeError(f"a pipe that began with {kind} cannot go on with {found}")
            _WRITINGS[kind](writer, item)
    finally:
        if isinstance(items, Generator):
            items.close()


def _report(error: BaseException, writer: StrandWriter, reports: Connection) -> None:
    """Abort the stream, then send the error to the parent, which receives it after the abort."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    trace = "".join(traceback.format_exception(error))[-_TRACE_CHARS_MAX:]
    writer.abort(f"{name}: {error}")
    try:
        pickled = pickle.dumps(error)
    except Exception:  # noqa: BLE001 - pickling may raise any error
        pickled = b""
    with suppress(OSError):  # the parent has closed the connection
        reports.send((name, str(error)[:_TRACE_CHARS_MAX], trace, pickled[:_CAUSE_BYTES_MAX]))


def _kind_of(item: Any, writer: StrandWriter) -> str:
    """Return the kind of a yielded value: a key of `_WRITINGS`."""
    arrow, numpy = sys.modules.get("pyarrow"), sys.modules.get("numpy")
    if arrow is not None and isinstance(item, (arrow.RecordBatch, arrow.Table)):
        return "batches"
    if writer.map.is_blocks:
        try:
            memoryview(item).release()
        except TypeError:
            raise TypeError(
                f"a pipe without a schema carries Arrow batches and bytes, not {type(item)}: "
                "pass schema=strand.build_schema(...) for records"
            ) from None
        return "payloads"
    if numpy is not None and isinstance(item, numpy.ndarray):
        return "arrays"
    if isinstance(item, Mapping) and any(
        hasattr(item.get(field.name), "__len__") and not isinstance(item[field.name], (str, bytes))
        for field in writer.map.schema.fields
        if field.facts.kind not in _LOOSE_KINDS
    ):
        return "columns"
    return "rows"


def _write_rows(writer: StrandWriter, item: Any) -> None:
    if isinstance(item, list):
        writer.write_record_batch(item)
    else:
        writer.write(item)


def _write_batches(writer: StrandWriter, item: Any) -> None:
    """Write a batch, or the batches of a table; an empty table still publishes its schema."""
    arrow = sys.modules["pyarrow"]
    pieces = item.to_batches() if isinstance(item, arrow.Table) else [item]
    for piece in pieces or [arrow.RecordBatch.from_pylist([], item.schema)]:
        writer.write_arrow(piece)


_WRITINGS: dict[str, Callable[[StrandWriter, Any], Any]] = {
    "arrays": StrandWriter.write_columns,
    "batches": _write_batches,
    "columns": StrandWriter.write_columns,
    "payloads": StrandWriter.write_bytes,
    "rows": _write_rows,
}
