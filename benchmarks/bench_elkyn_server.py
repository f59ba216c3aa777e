"""Claim: a served tree syncs every write before it answers, and is faster than what does not.

Puts and gets of 200-byte records under 100,000 random keys at the same number of connections for
every server, one after the other, each in a process of its own, best of the rounds; the load comes
from wrk (from redis-benchmark for Redis) and shares the machine. CPU is the server's alone. Then
one path that many event streams follow, and as many clients as a small site has.

    python benchmarks/bench_elkyn_server.py [--rows put,get,events,held] [--scratch DIR]
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
from elkyn_peers.load import Measured, press
from elkyn_peers.servers import SERVERS, Running, Server, running

STREAMS = Path(__file__).resolve().parent / "elkyn_peers" / "streams.py"
OWNER = {"Authorization": "Bearer owner"}
CONNECTIONS = 256


def requests(method: str, options: argparse.Namespace) -> None:
    """Print what each server does with puts or gets."""
    goal = "≥ 8,000 a second, p99 ≤ 80 ms" if method == "PUT" else "≥ 15,000 a second"
    print(f"\n### {method} at {CONNECTIONS} connections; to reach: {goal}\n")
    print("| server | a second | ours ÷ it | CPU µs each | p99 ms | errors | a write is |")
    print("|---|---|---|---|---|---|---|")
    ours = 0.0
    for server in SERVERS:
        missing = server.missing()
        if missing is not None:
            print(f"| {server.name} | left out: {missing} | | | | | |")
            continue
        best = _best(server, method, options)
        ours = ours or best.per_second
        ratio = f"{ours / best.per_second:.1f}" if best.per_second else "no answer"
        print(
            f"| {server.name} | {best.per_second:,.0f} | {ratio} "
            f"| {best.cpu_us:.0f} | {best.p99_ms:.1f} | {best.errors} | {server.note} |",
            flush=True,
        )


def _best(server: Server, method: str, options: argparse.Namespace) -> Measured:
    found: list[Measured] = []
    for number in range(options.rounds):
        with running(server, options.scratch / f"{server.name.split()[0]}{number}") as target:
            if method == "GET":
                press(target, "PUT", connections=CONNECTIONS, seconds=options.seconds)
            found.append(press(target, method, connections=CONNECTIONS, seconds=options.seconds))
    return max(found, key=lambda measured: measured.per_second)


def events(options: argparse.Namespace) -> None:
    """Print how fast writes to one path reach all who follow it."""
    count, writes = (1000, 100) if not options.quick else (100, 20)
    print(f"\n### {count:,} event streams on one path; to reach: ≥ 40,000 events/s, ≤ 10 µs CPU\n")
    print("| events | events a second | CPU µs an event | MiB of the server |")
    print("|---|---|---|---|")
    with running(SERVERS[0], options.scratch / "events") as target, _client(target) as client:
        client.put("/live.json", json=0)
        with _staying("sse", str(target.port), "/live.json", str(count)) as stay:
            cpu, start = target.cpu_seconds(), time.monotonic()
            for number in range(writes):
                client.put("/live.json", json=number + 1).raise_for_status()
            _until_quiet(target)
            cpu = target.cpu_seconds() - cpu
            heard, last = stay()
        expected = count * writes
        assert heard == expected, f"{heard} of {expected} events came"
        rate = heard / (last - start)
        print(f"| {heard:,} | {rate:,.0f} | {cpu / heard * 1e6:.1f} | {target.rss_mib():.0f} |")


def held(options: argparse.Namespace) -> None:
    """Print what it takes to hold many clients that listen."""
    sockets, listens, streams = (100, 1000, 5000) if not options.quick else (5, 50, 100)
    print(f"\n### {sockets} sockets × {listens:,} listens, and {streams:,} event streams, held\n")
    print("| MiB before | MiB with all | µs of CPU a second, idle | PUT while held, ms |")
    print("|---|---|---|---|")
    with running(SERVERS[0], options.scratch / "held") as target, _client(target) as client:
        before = target.rss_mib()
        with (
            _staying("ws", str(target.port), str(sockets), str(listens)),
            _staying("sse", str(target.port), "/held.json", str(streams)),
        ):
            full, cpu = target.rss_mib(), target.cpu_seconds()
            time.sleep(5)
            idle = (target.cpu_seconds() - cpu) / 5 * 1e6
            start = time.monotonic()
            for number in range(100):
                client.put(f"/many/s1/l{number}.json", json=number).raise_for_status()
            each = (time.monotonic() - start) * 10
        print(f"| {before:.0f} | {full:.0f} | {idle:,.0f} | {each:.1f} |")


@contextmanager
def _staying(*arguments: str) -> Iterator[Callable[[], tuple[int, float]]]:
    """Clients that stay; yields how to end them and learn what they heard."""
    command = [sys.executable, str(STREAMS), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        stdin, stdout = _pipes(run)
        if stdout.readline() != "open\n":
            raise SystemExit("the clients could not connect")

        def end() -> tuple[int, float]:
            stdin.close()
            heard, last = stdout.readline().split()
            return int(heard), float(last)

        yield end
        stdin.close()


def _pipes(run: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert run.stdin is not None
    assert run.stdout is not None
    return run.stdin, run.stdout


def _client(target: Running) -> httpx.Client:
    return httpx.Client(base_url=target.url, headers=OWNER, timeout=60)


def _until_quiet(target: Running) -> None:
    spent = -1.0
    while target.cpu_seconds() - spent > 0.02:
        spent = target.cpu_seconds()
        time.sleep(0.5)


ROWS: dict[str, Callable[[argparse.Namespace], None]] = {
    "put": lambda options: requests("PUT", options),
    "get": lambda options: requests("GET", options),
    "events": events,
    "held": held,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", default=",".join(ROWS), help=f"comma list of {','.join(ROWS)}")
    parser.add_argument("--scratch", type=Path, help="folder on a disk for the servers' data")
    parser.add_argument("--seconds", type=float, default=5, help="how long each load lasts")
    parser.add_argument("--rounds", type=int, default=2, help="the best of so many counts")
    parser.add_argument("--quick", action="store_true", help="small counts, one short round")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rounds = 1, 1
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    print(
        f"python {platform.python_version()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        options.scratch = Path(folder)
        for name in options.rows.split(","):
            ROWS[name](options)


if __name__ == "__main__":
    main()
