"""Claim: a served tree syncs every write before it answers, and is faster than what does not.

Puts of 200-byte records under 100,000 random keys, and gets of 10,000, at the same number of connections
for every server, in turns, each in a process of its own, best of the rounds; the load comes from wrk (from
redis-benchmark for Redis) and shares the machine. CPU is the server's alone. Then one path that many
event streams follow; many sockets that listen and many streams, held at once; and a follower.

    python benchmarks/bench_elkyn_server.py [--rows requests,events,held,follower] [--scratch DIR]
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
from itertools import pairwise
from pathlib import Path
from typing import IO

import httpx
from elkyn_peers.load import Measured, press
from elkyn_peers.servers import OWNER, SERVERS, Running, elkyn, running

STREAMS = Path(__file__).resolve().parent / "elkyn_peers" / "streams.py"
CONNECTIONS = 256
KEYS_READ = 10_000
GOALS = {"PUT": "≥ 8,000 a second, p99 ≤ 80 ms", "GET": "≥ 15,000 a second"}

Ask = Callable[[], tuple[int, float]]
"""Says how many events clients have heard, and when the last one came."""


def requests(options: argparse.Namespace) -> None:
    """Print what each server does with puts and with gets."""
    found: dict[str, tuple[list[Measured], list[Measured]]] = {}
    for number in range(options.rounds):
        for server in SERVERS:
            if server.missing() is None:
                with running(
                    server, options.scratch / f"{server.name.split()[0]}{number}"
                ) as target:
                    put, get = found.setdefault(server.name, ([], []))
                    put.append(_press(target, "PUT", options.seconds))
                    _press(target, "PUT", 2, keys=KEYS_READ)
                    get.append(_press(target, "GET", options.seconds, keys=KEYS_READ))
    for index, (method, goal) in enumerate(GOALS.items()):
        print(f"\n### {method} at {CONNECTIONS} connections; to reach: {goal}\n")
        print("| server | a second | ours ÷ it | CPU µs each | p99 ms | errors | a write is |")
        print("|---|---|---|---|---|---|---|")
        ours = max(one.per_second for one in found[SERVERS[0].name][index])
        for server in SERVERS:
            missing = server.missing()
            if missing is not None:
                print(f"| {server.name} | left out: {missing} | | | | | |")
                continue
            rounds = found[server.name][index]
            best = max(rounds, key=lambda measured: measured.per_second)
            ratio = f"{ours / best.per_second:.1f}" if best.per_second else "no answer"
            errors = sum(measured.errors for measured in rounds)
            print(
                f"| {server.name} | {best.per_second:,.0f} | {ratio} "
                f"| {best.cpu_us:.0f} | {best.p99_ms:.1f} | {errors} | {server.note} |",
                flush=True,
            )


def _press(target: Running, method: str, seconds: float, keys: int = 100_000) -> Measured:
    return press(target, method, connections=CONNECTIONS, seconds=seconds, keys=keys)


def events(options: argparse.Namespace) -> None:
    """Print how fast writes to one path reach all who follow it."""
    count, writes = (1000, 100) if not options.quick else (1000, 20)
    print(f"\n### {count:,} event streams on one path; to reach: ≥ 40,000 events/s, ≤ 10 µs CPU\n")
    print("| events | events a second | CPU µs an event | µs to open a stream |")
    print("|---|---|---|---|")
    best: tuple[float, float, float] | None = None
    with running(SERVERS[0], options.scratch / "events") as target, _client(target) as client:
        client.put("/live.json", json=0)
        for _round in range(options.rounds):
            opening = target.cpu_seconds()
            with _staying("sse", str(target.port), "/live.json", str(count)) as ask:
                cpu, start = target.cpu_seconds(), time.monotonic()
                opening = (cpu - opening) / count * 1e6
                for number in range(writes):
                    client.put("/live.json", json=number + 1).raise_for_status()
                heard, last = _heard(ask, count * writes)
                cpu = target.cpu_seconds() - cpu
            found = (heard / (last - start), cpu / heard * 1e6, opening)
            best = found if best is None or found[1] < best[1] else best
    assert best is not None
    print(f"| {count * writes:,} | {best[0]:,.0f} | {best[1]:.1f} | {best[2]:.0f} |", flush=True)


def held(options: argparse.Namespace) -> None:
    """Print what it takes to hold many clients that listen, and whether all of them hear."""
    sockets, listens, streams = (100, 1000, 5000) if not options.quick else (20, 250, 1000)
    print(f"\n### {sockets} sockets × {listens:,} listens and {streams:,} event streams at once\n")
    with running(SERVERS[0], options.scratch / "held") as target, _client(target) as client:
        before, spent = target.anon_mib(), [target.cpu_seconds()]
        with _staying("ws", str(target.port), str(sockets), str(listens)) as ask_sockets:
            spent.append(target.cpu_seconds())
            after_sockets = target.anon_mib()
            with _staying("sse", str(target.port), "/held.json", str(streams)) as ask_streams:
                spent.append(target.cpu_seconds())
                shown, full = target.metrics(), target.anon_mib()
                ws, sse = (shown[f'elkyn_connections{{kind="{kind}"}}'] for kind in ("ws", "sse"))
                each = [(b - a) * 1e6 for a, b in pairwise(spent)]
                rows = [
                    ("held, as the server counts", f"{ws:,.0f} sockets, {sse:,.0f} streams"),
                    ("CPU of a listen", f"{each[0] / sockets / listens:.0f} µs"),
                    ("CPU of a stream", f"{each[1] / streams:.0f} µs"),
                    (
                        "RssAnon before, with sockets, with all",
                        f"{before:.0f}, {after_sockets:.0f}, {full:.0f} MiB",
                    ),
                    ("CPU while idle", f"{_idle(target):.1f} %"),
                    ("one PUT while held", f"{_put_ms(client):.1f} ms"),
                ]
                heard = ask_sockets()[0]
                start = time.monotonic()
                many = {
                    f"s{number}": {f"l{index}": "x" for index in range(listens)}
                    for number in range(sockets)
                }
                client.put("/many.json?print=silent", json=many).raise_for_status()
                got, last = _heard(ask_sockets, heard + sockets * listens)
                rows.append((f"one write to all {got - heard:,} listens", f"{last - start:.2f} s"))
                start = time.monotonic()
                client.put("/held.json", json=1).raise_for_status()
                got, last = _heard(ask_streams, streams)
                rows.append((f"one write to all {got:,} streams", f"{last - start:.2f} s"))
    print("| | |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |", flush=True)


def follower(options: argparse.Namespace) -> None:
    """Print what one follower costs its leader, how far behind it is, and how it catches up."""
    print("\n### One follower, PUT at 256 connections\n")
    print(
        "| answered | a second | p99 ms | CPU µs leader | CPU µs follower | behind at the end, ms |"
    )
    print("|---|---|---|---|---|---|")
    token = options.scratch / "token"
    token.write_text("owner")
    for name, ack in (
        ("alone", None),
        ("one follower, ack local", "local"),
        ("one follower, ack replicas:1", "replicas:1"),
    ):
        leader_kind = elkyn(*(() if ack is None else ("--ack", ack)))
        with running(leader_kind, options.scratch / "leader") as leader:
            if ack is None:
                one = _press(leader, "PUT", options.seconds)
                print(
                    f"| {name} | {one.per_second:,.0f} | {one.p99_ms:.0f} | {one.cpu_us:.0f} | | |"
                )
                continue
            kind = elkyn("--follow", leader.url, "--follow-token-file", str(token))
            with running(kind, options.scratch / "follower") as behind:
                _until_level(leader, behind)
                cpu, at = behind.cpu_seconds(), _position(leader)
                one = _press(leader, "PUT", options.seconds)
                late = _until_level(leader, behind)
                each = (behind.cpu_seconds() - cpu) / (_position(leader) - at) * 1e6
                print(
                    f"| {name} | {one.per_second:,.0f} | {one.p99_ms:.0f} | {one.cpu_us:.0f} "
                    f"| {each:.0f} | {late * 1e3:.0f} |",
                    flush=True,
                )
                if ack == "local":
                    caught = _caught_up(leader, behind, options.seconds)
    print(f"\nStopped, and then let go on, it catches up with {caught:,.0f} writes a second.")


def _caught_up(leader: Running, behind: Running, seconds: float) -> float:
    behind.process.suspend()
    try:
        at = _position(leader)
        _press(leader, "PUT", seconds)
        missed = _position(leader) - at
    finally:
        behind.process.resume()
    return missed / _until_level(leader, behind)


def _position(target: Running) -> float:
    return target.metrics().get('elkyn_position{ns="default"}', 0.0)


def _until_level(leader: Running, behind: Running) -> float:
    """Wait until a follower has what its leader has; returns the seconds that took."""
    start = time.monotonic()
    at = _position(leader)
    while _position(behind) < at:
        if time.monotonic() - start > 120:
            raise SystemExit("the follower does not catch up")
        time.sleep(0.005)
    return time.monotonic() - start


def _heard(ask: Ask, wanted: int) -> tuple[int, float]:
    """Wait until clients have heard so many events."""
    deadline = time.monotonic() + 120
    while (found := ask())[0] < wanted:
        if time.monotonic() > deadline:
            raise SystemExit(f"{found[0]:,} of {wanted:,} events came")
        time.sleep(0.05)
    return found


def _idle(target: Running) -> float:
    cpu, start = target.cpu_seconds(), time.monotonic()
    time.sleep(3)
    return (target.cpu_seconds() - cpu) / (time.monotonic() - start) * 100


def _put_ms(client: httpx.Client) -> float:
    start = time.monotonic()
    for number in range(100):
        client.put(f"/many/s1/l{number}.json", json=number).raise_for_status()
    return (time.monotonic() - start) * 10


@contextmanager
def _staying(*arguments: str) -> Iterator[Ask]:
    """Clients that stay; yields how to learn what they have heard."""
    command = [sys.executable, str(STREAMS), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        stdin, stdout = _pipes(run)
        if stdout.readline() != "open\n":
            raise SystemExit("the clients could not connect")

        def ask() -> tuple[int, float]:
            stdin.write("\n")
            stdin.flush()
            heard, last = stdout.readline().split()
            return int(heard), float(last)

        yield ask
        stdin.close()


def _pipes(run: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert run.stdin is not None
    assert run.stdout is not None
    return run.stdin, run.stdout


def _client(target: Running) -> httpx.Client:
    return httpx.Client(base_url=target.url, headers=OWNER, timeout=60)


ROWS: dict[str, Callable[[argparse.Namespace], None]] = {
    "requests": requests,
    "events": events,
    "held": held,
    "follower": follower,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", default=",".join(ROWS), help=f"comma list of {','.join(ROWS)}")
    parser.add_argument("--scratch", type=Path, help="folder on a disk for the servers' data")
    parser.add_argument("--seconds", type=float, default=3, help="how long each load lasts")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many counts")
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
