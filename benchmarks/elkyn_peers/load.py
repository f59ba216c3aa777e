"""Load from a process of its own: wrk for HTTP, redis-benchmark for Redis."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from elkyn_peers.servers import Running

__all__ = ["Measured", "press"]

_SCRIPT = Path(__file__).resolve().parent / "load.lua"
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True)
class Measured:
    """What a server did under load.

    Args:
        per_second: answers a second.
        cpu_us: CPU of the server for one answer, in microseconds.
        p99_ms: what one answer in a hundred took longer than, in milliseconds.
        errors: answers that were none.
    """

    per_second: float
    cpu_us: float
    p99_ms: float
    errors: int


def press(
    target: Running, method: str, *, connections: int, seconds: float, keys: int = 100_000
) -> Measured:
    """Ask for `seconds` on so many connections at once, by random key; records have 200 bytes."""
    before = target.cpu_seconds()
    if target.server.name == "Redis":
        found = _redis(target, method, connections, seconds, keys)
    else:
        found = _wrk(target, method, connections, seconds, keys)
    requests, per_second, p99_ms, errors = found
    cpu = target.cpu_seconds() - before
    return Measured(per_second, cpu / max(requests, 1) * 1e6, p99_ms, errors)


def _wrk(
    target: Running, method: str, connections: int, seconds: float, keys: int
) -> tuple[int, float, float, int]:
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("the load comes from wrk: apt-get install wrk")
    command = [wrk, "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", str(_SCRIPT)]
    command += [target.url, "--", method, target.server.suffix, str(keys)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    requests = int(_find(r"(\d+) requests in", text))
    per_second = float(_find(r"Requests/sec:\s+([\d.]+)", text))
    number, unit = re.findall(r"99%\s+([\d.]+)(us|ms|s|m)", text)[0]
    failed = re.findall(r"Non-2xx or 3xx responses: (\d+)", text)
    lost = re.findall(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    errors = sum(map(int, failed)) + sum(map(int, lost[0] if lost else ()))
    return requests, per_second, float(number) * _UNITS[unit], errors


def _redis(
    target: Running, method: str, connections: int, seconds: float, keys: int
) -> tuple[int, float, float, int]:
    verb = "set" if method == "PUT" else "get"
    requests = int(6000 * seconds)
    command = ["redis-benchmark", "-p", str(target.port), "-c", str(connections), "-d", "200"]
    command += ["-t", verb, "-r", str(keys), "-n", str(requests), "--csv"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    names = lines[0].replace('"', "").split(",")
    row = dict(zip(names, lines[1].replace('"', "").split(","), strict=False))
    return requests, float(row["rps"]), float(row["p99_latency_ms"]), 0


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise SystemExit(f"wrk said nothing of {pattern}: {text}")
    return found.group(1)
