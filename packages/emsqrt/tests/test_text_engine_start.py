"""The lean process before it reads: what it has loaded, and what the kernel charges it."""

import os
import subprocess
import sys

from emsqrt.environment import LEAN_ENVIRONMENT

ANON_KIB_MAX = 9 << 10
"""Measured 7.9 MiB with CPython 3.11, of which the bare interpreter is 2.8."""

PROBE = """
import sys
import emsqrt.text_engine.process, emsqrt.text_engine.session
loaded = {name for name, module in sys.modules.items() if type(module).__name__ == "module"}
print(*sorted(loaded))
print(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1])
"""

UNWANTED = {
    "argparse", "ast", "asyncio", "bz2", "decimal", "dis", "email", "fractions", "hmac", "http",
    "inspect", "ipaddress", "logging", "lzma", "multiprocessing", "numpy", "pyarrow", "random",
    "secrets", "shutil", "socket", "ssl", "subprocess", "tempfile", "tokenize", "urllib.request",
    "emsqrt.expr", "emsqrt.plan", "emsqrt.planner", "emsqrt.te", "emsqrt.external.join",
}  # fmt: skip


def test_the_lean_process_starts_small() -> None:
    environment = {**os.environ, **LEAN_ENVIRONMENT}
    words = [sys.executable, "-P", "-c", PROBE]
    subprocess.run(words, check=True, capture_output=True, env=environment)  # compiled is smaller
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
    loaded, anon_kib = done.stdout.splitlines()
    assert not UNWANTED & set(loaded.split())
    if not sys.dont_write_bytecode:
        assert int(anon_kib) <= ANON_KIB_MAX
