"""A lean process loads what a program needs before it grants memory."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emsqrt import scan
from emsqrt.environment import LEAN_ENVIRONMENT
from emsqrt.pipeline import Pipeline
from emsqrt.text_engine.compile import try_compile

MIB = 1 << 20
PROBE = """
import json, sys
import emsqrt.text_engine.process
from pathlib import Path
from emsqrt.local_runner import Listeners, run_text_locally
before = set()
listeners = Listeners(on_context=lambda _: before.update(sys.modules))
program, cap_bytes, spill_dir = json.load(sys.stdin)
run_text_locally(program, cap_bytes, Path(spill_dir), listeners)
print(*(name for name in sys.modules if name.startswith("emsqrt.") and name not in before))
"""


VERBS: dict[str, Callable[[Pipeline], Pipeline]] = {
    "sort": lambda a: a.filter("n > 3").sort("t"),
    "aggregate": lambda a: a.group_by("t").agg("count(*)", m="median(n)"),
    "top": lambda a: a.with_column("m", "n + 1").top_k(3, "m"),
    "join": lambda a: a.join(a.select("n"), "n"),
}
ROWS = 80_000
"""More than fits the memory of the operators below."""


@pytest.mark.sample(1)
@pytest.mark.parametrize(("name", "kind"), [*((name, "csv") for name in VERBS), ("sort", "jsonl")])
def test_operators_are_loaded_before_memory_is_granted(
    name: str, kind: str, tmp_path: Path
) -> None:
    rows = [(number, f"text {number * 7919 % ROWS}") for number in range(ROWS)]
    source = tmp_path / f"a.{kind}"
    if kind == "csv":
        source.write_text("n,t\n" + "".join(f"{n},{t}\n" for n, t in rows))
    else:
        source.write_text("".join(json.dumps({"n": n, "t": t}) + "\n" for n, t in rows))
    pipeline = VERBS[name](scan(source)).sink(tmp_path / f"out.{kind}")
    program = try_compile(pipeline.plan, tmp_path)
    request = json.dumps([program, 15 * MIB, str(tmp_path / "spill")])
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROBE],
        input=request,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **LEAN_ENVIRONMENT},
    )
    assert done.stdout.strip() == ""
