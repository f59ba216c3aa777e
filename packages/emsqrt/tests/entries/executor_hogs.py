"""Entry points that exceed their memory limit, each in its own way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from emsqrt.executor import EntryContext

MIB = 1 << 20


def hog(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    context.emit(b"started")
    return _HOGS[request["kind"]](context)


def _hog_politely(context: EntryContext) -> dict[str, Any]:
    kept: list[Any] = []
    while True:
        kept.append(b"x" * MIB)
        context.check()
        time.sleep(0.001)


def _hog_objects(context: EntryContext) -> dict[str, Any]:
    kept: list[Any] = []
    while True:
        kept.append([len(kept)])


def _hog_blocks(context: EntryContext) -> dict[str, Any]:
    kept: list[Any] = []
    while True:
        kept.append(b"x" * MIB)


def _hog_at_once(context: EntryContext) -> dict[str, Any]:
    return {"bytes": len(b"x" * (1 << 30))}


def _hog_numpy(context: EntryContext) -> dict[str, Any]:
    return {"bytes": int(np.ones(1 << 27).nbytes)}


def _hog_arrow(context: EntryContext) -> dict[str, Any]:
    array = pa.array(range(1000))
    while True:
        array = pa.concat_arrays([array, array])


def _hog_what_it_reserved(context: EntryContext) -> dict[str, Any]:
    """Reserve in steps that each fit, touch nothing, then touch everything."""
    reserved = []
    for _ in range(3):
        reserved.append(np.empty(25 * MIB, np.uint8))
        time.sleep(1.1)
    for block in reserved:
        block[:] = 1
    time.sleep(60)
    return {}


_HOGS = {
    "what it reserved": _hog_what_it_reserved,
    "politely": _hog_politely,
    "objects": _hog_objects,
    "blocks": _hog_blocks,
    "at once": _hog_at_once,
    "numpy": _hog_numpy,
    "arrow": _hog_arrow,
}


def demand(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Reserve memory; with a file `go`, emit something before, and wait until the file is there."""
    if go := request.get("go"):
        context.emit(b"before")
        while not Path(go).exists():
            time.sleep(0.002)
    with context.budget.acquire(request["bytes"], "demand"):
        return {}
