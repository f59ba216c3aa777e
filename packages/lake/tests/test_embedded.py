"""A lake inside a user's program: without a close, interrupted, forked, and in use elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PRELUDE = """
import os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
import lake
folder = sys.argv[1]
"""


def program(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + body, str(folder)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.slow
def test_two_lines_are_enough_and_the_next_program_opens_the_folder(tmp_path: Path) -> None:
    body = "lake.open(folder).sql('CREATE TABLE IF NOT EXISTS t AS SELECT 42 AS a')\n"
    for _ in range(2):
        done = program(tmp_path, body)
        assert (done.returncode, done.stderr) == (0, "")
    done = program(tmp_path, "print(lake.open(folder).sql('FROM t'))\n")
    assert done.stdout == "a\n42\n(1 row)\n"


@pytest.mark.slow
def test_ctrl_c_stops_the_statement_and_the_lake_goes_on(tmp_path: Path) -> None:
    body = """
found = lake.open(folder)
def interrupt():
    while not found.running.list(lake.statements.limits.Requester("")):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)
import lake.statements.limits
threading.Thread(target=interrupt).start()
try:
    found.sql("SELECT count(*) FROM range(10000000) a, range(1000000) b WHERE a.range * b.range = 7")
except KeyboardInterrupt:
    print("interrupted", found.sql("SELECT 1").value)
"""
    done = program(tmp_path, body)
    assert (done.returncode, done.stdout) == (0, "interrupted 1\n"), done.stderr


@pytest.mark.slow
def test_a_forked_process_is_told_so_and_harms_nothing(tmp_path: Path) -> None:
    body = """
with lake.open(folder) as found:
    found.sql("SELECT 1")
    child = os.fork()
    if child == 0:
        try:
            found.sql("SELECT 2")
        except Exception as error:
            print(type(error).__name__, error, error.hint, flush=True)
        found.close()
        os._exit(0)
    os.waitpid(child, 0)
    print(found.sql("SELECT 3").value)
    try:
        lake.open(folder)
    except Exception as error:
        print(type(error).__name__, error)
"""
    done = program(tmp_path, body)
    first, second, third = done.stdout.splitlines()
    assert "forked process" in first
    assert "after the fork" in first
    assert second == "3"
    assert third.startswith("StoreInUse")
    assert "is open in process" in third


def test_an_import_loads_no_engine(tmp_path: Path) -> None:
    heavy = "{'pyarrow', 'duckdb', 'numpy', 'pandas', 'polars', 'sqlglot', 'fastapi'}"
    done = program(tmp_path, f"print({heavy} & set(sys.modules))")
    assert done.stdout == "set()\n"
