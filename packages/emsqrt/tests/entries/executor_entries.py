"""Entry points for the executor's tests; imported in executor processes."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from emsqrt.executor import EntryContext
from sennit_core.errors import TooLarge, UnknownColumn

MIB = 1 << 20


def echo(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    for text in request.get("emit", []):
        context.emit(text.encode())
    return {**request, "pid": os.getpid()}


def describe(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    del request
    sys.stdout.write("this goes nowhere near the caller's output\n")
    try:
        importlib.import_module("pandas")
        pandas = True
    except ImportError:
        pandas = False
    return {
        "modules": sorted(sys.modules),
        "capBytes": context.cap_bytes,
        "budgetBytes": context.budget.cap_bytes,
        "argv": sys.argv,
        "pandas": pandas,
        "pool": os.environ["ARROW_DEFAULT_MEMORY_POOL"],
    }


def fail(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    context.emit(b"before it failed")
    if request["how"] == "sennit":
        raise UnknownColumn(name="carier", known=("carrier", "distance"))
    if request["how"] == "unsendable":
        raise TooLarge(what="half a pair \ud800", limit_bytes=1, actual_bytes=1 << 70)
    if request["how"] == "result":
        return {"unsendable": object()}
    if request["how"] == "exit":
        os._exit(3)
    raise RuntimeError("something broke")


def flood(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    block = bytes(request["blockBytes"])
    for done in range(request["blocks"]):
        context.emit(block)
        context.progress(done=done + 1, phase="flood")
    return {}


def arrow(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    import pyarrow as pa

    for start in range(0, request["rows"], 1000):
        rows = range(start, min(start + 1000, request["rows"]))
        context.emit_arrow(pa.record_batch({"n": list(rows), "s": [str(n) * 10 for n in rows]}))
    context.emit_arrow(pa.record_batch({"n": [-1], "s": ["x" * request["long"]]}))
    return {}


def arrow_one_by_one(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Emit the next batch when the file that the reader writes to grows; a dictionary that changes."""
    import pyarrow as pa

    go = Path(request["go"])
    for count in range(1, 4):
        values = pa.array([f"value {count}"] * count)
        context.emit_arrow(pa.record_batch({"d": values.dictionary_encode()}))
        while go.stat().st_size < count:
            context.check()
            time.sleep(0.001)
    return {}


def wait(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    context.emit(b"started")
    while True:
        context.check()
        time.sleep(0.005)


def until(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Note the start in the file `log`, and go on when the file `go` is there."""
    with Path(request["log"]).open("a") as log:
        log.write("started\n")
    context.emit(b"one,")
    while not Path(request["go"]).exists():
        if not request.get("deaf"):
            context.check()
        time.sleep(0.002)
    context.emit(b"two")
    return {}


def ignore_everything(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    context.emit(b"started")
    while True:
        sum(range(1000))


def block_until_interrupted(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    interrupted = threading.Event()
    context.on_cancel(interrupted.set)
    context.emit(b"started")
    interrupted.wait()
    raise OSError("the library was interrupted")


def spill(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    (context.spill_dir / "run").write_bytes(b"x" * 1000)
    context.emit(str(context.spill_dir).encode())
    if request.get("wait"):
        wait(request, context)
    return {}


def overdraw(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    with context.budget.acquire(context.budget.cap_bytes + 1, "hash table"):
        return {}
