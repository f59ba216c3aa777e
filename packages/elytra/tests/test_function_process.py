"""The process of a Python function, without a node: limits, hostile programs, and what the kernel has."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from elytra import StepFailed
from elytra.functions.operator import FunctionRows, granted
from elytra.functions.step import FunctionLimits, FunctionStep
from elytra.functions.syscalls import NAMES
from emsqrt.plan import DatasetRef, Scan
from sennit_core.errors import Cancelled
from sennit_core.schema import Schema

INTS = Schema.from_arrow(pa.schema({"value": pa.int64()}))


class _Run:
    """The run of the operator: it grants the limits, and may be cancelled."""

    def __init__(self, limits: FunctionLimits) -> None:
        self.context = SimpleNamespace(operators={"python": granted(limits.to_json())})
        self.is_cancelled = False

    def admit(self, *_: object) -> Any:
        return nullcontext()

    def check(self) -> None:
        if self.is_cancelled:
            raise Cancelled("the run")


def _open(
    program: str, rows: int = 3, limits: FunctionLimits | None = None, **step: Any
) -> tuple[Iterator[pa.RecordBatch], _Run]:
    batch = pa.record_batch({"value": pa.array(range(rows), pa.int64())})
    source = SimpleNamespace(schema=INTS, batches=lambda: (each for each in [batch]))
    options = {"verb": "map", "shape": "value", "result_shape": "value", **step}
    node = FunctionStep(program=program, label="step 1, map(f)", **options)
    run = _Run(limits or FunctionLimits())
    return FunctionRows(node.over(Scan(DatasetRef("d")), INTS), [source], run).batches(), run  # type: ignore[arg-type]


def _values(program: str, rows: int = 3, **options: Any) -> list[Any]:
    batches, _ = _open(program, rows, **options)
    return [value for batch in batches for value in batch.column(0).to_pylist()]


def test_rows_pass_in_pieces_in_both_directions() -> None:
    repeat = "def function(n): return range(20000) if n == 8192 else [n]"
    found = _values(repeat, rows=8194, verb="flat_map")
    assert found == [*range(8192), *range(20000), 8193]


def test_a_function_that_waits_for_ever_is_ended() -> None:
    program = "import time\ndef function(n):\n    if n == 2: time.sleep(1000)\n    return n"
    with pytest.raises(StepFailed, match=r"row 2: it has not ended within 0\.5 seconds"):
        _values(program, limits=FunctionLimits(seconds=0.5))


def _children() -> set[str]:
    return set(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split())


def test_a_cancelled_run_ends_the_process() -> None:
    before = _children()  # of other tests' executors
    batches, run = _open("import time\ntime.sleep(1000)\nfunction = abs")
    threading.Timer(0.2, lambda: setattr(run, "is_cancelled", True)).start()
    with pytest.raises(Cancelled):
        next(batches)
    assert _children() <= before


@pytest.mark.parametrize(
    ("program", "because"),
    [
        ("function = 5", "defines no function"),
        ("def function(:", "SyntaxError"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("raise SystemExit", "SystemExit"),
        ("class E(Exception):\n    __str__ = None\ndef function(n): raise E", "E"),
        ("def function(n): raise Exception('x' * 1_000_000)", "xxx"),
        ("def function(n): return 'a'", "'a' is not Int64"),
        ("import sys\nsys.setrecursionlimit(10**9)\ndef function(n): return function(n)", "row 0"),
        ("import mmap\ndef function(n): return len(mmap.mmap(-1, 1 << 33))", "Cannot allocate"),
        # It writes what it wants to the executor instead of rows.
        ("import os\n[os.write(f, b'x' * 4096) for f in (3, 4, 5, 6) if f in OUT]", "no frame"),
        ("import os, struct\nos.write(4, struct.pack('=cI', b'R', 3) + b'abc')", "no Arrow data"),
        ("import os, struct\nos.write(4, struct.pack('=cI', b'R', 1 << 31))", "no frame"),
        ("import os\ndef function(n): os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
    ],
    ids=str,
)
@pytest.mark.nightly
def test_hostile_programs_fail_their_step_alone(program: str, because: str) -> None:
    with pytest.raises(StepFailed, match=re.escape(because)) as caught:
        _values(program.replace("if f in OUT", "if f == 4"), limits=FunctionLimits(64 << 20, 60.0))
    assert caught.value.step == "step 1, map(f)"
    assert len(str(caught.value)) < 5000


@pytest.mark.nightly
def test_a_process_ends_with_its_executor() -> None:
    (started := os.pipe())
    child = os.fork()
    if child == 0:
        batches, _ = _open("import time\ntime.sleep(1000)\nfunction = abs")
        threading.Timer(3.0, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
        next(batches)
        os._exit(0)
    os.close(started[1])
    os.waitpid(child, 0)
    until = time.monotonic() + 30
    while any(str(child) == _parent(pid) for pid in _processes()):
        assert time.monotonic() < until
        time.sleep(0.1)
    mine = [pid for pid in _processes() if b"elytra.functions.child" in _command(pid)]
    assert not [pid for pid in mine if _parent(pid) in ("1", str(os.getpid()))]


def _processes() -> list[str]:
    return [each.name for each in Path("/proc").iterdir() if each.name.isdigit()]


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _parent(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        return ""


@pytest.mark.parametrize(
    ("machine", "header"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_the_numbers_of_system_calls_are_those_of_the_kernel(machine: str, header: str) -> None:
    if not Path(header).exists():
        pytest.skip("the kernel's headers are not installed")
    text = Path(header).read_text()
    found = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text))
    # The generic header names these two after their 32-bit forms.
    renamed = {"newfstatat": "fstatat"} if machine == "aarch64" else {}
    for name, number in NAMES[machine].items():
        assert int(found[renamed.get(name, name)]) == number, name
