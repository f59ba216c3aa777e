"""The other process of a two-process test: `peer.py ROLE FD [COUNT] [POINT]`.

At POINT it says so on standard output and kills itself with SIGKILL.
"""

import os
import signal
import struct
import sys
from typing import Any

import strand

ROWS = strand.build_schema([("id", "u32"), ("name", "utf8")])


def payload(index: int) -> bytes:
    return b"%d:" % index + bytes([index & 255]) * (index * 37 % 200)


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def write_all(writer: Any, count: int) -> None:
    for index in range(count):
        writer.write_bytes(payload(index))


def collect(view: Any, into: list[bytes]) -> None:
    for data in view.payloads():
        into.append(bytes(data))  # noqa: PERF401 - keeps what came before an error


def die(point: str) -> None:
    say(point)
    os.kill(os.getpid(), signal.SIGKILL)


def produce(ring: strand.Ring, count: int, point: str) -> None:
    with ring.producer() as writer:
        say("attached")
        write_all(writer, count)
        if point == "published":
            die(point)
        if point in ("claimed", "filled"):
            claim_and_die(writer, point)


def claim_and_die(writer: Any, point: str) -> None:
    slot, _ = writer.claim_slot()
    if point == "claimed":
        die(point)
    start, offset = writer.claim_heap_bytes(5, 64)
    writer.memory[start : start + 5] = b"never"
    struct.pack_into("<QI", writer.memory, slot, offset, 5)
    die(point)


def consume(ring: strand.Ring, count: int, point: str) -> None:
    with ring.consumer() as view:
        say("attached")
        if point == "attached":
            die(point)
        for index, data in enumerate(view.payloads()):
            assert bytes(data) == payload(index)
            if index + 1 == count:
                die(point)


def produce_rows(ring: strand.Ring, count: int, _point: str) -> None:
    with ring.producer() as writer:
        writer.write_record_batch((index, f"row {index}") for index in range(count))


def produce_arrow(ring: strand.Ring, count: int, _point: str) -> None:
    import pyarrow as pa

    with ring.producer() as writer:
        for index in range(count):
            writer.write_arrow(pa.record_batch({"n": [index, index + 1], "s": ["a", None]}))


def main() -> None:
    role, fd, *rest = sys.argv[1:]
    count = int(rest[0]) if rest else 0
    point = rest[1] if len(rest) > 1 else ""
    roles = {
        "produce": produce,
        "consume": consume,
        "produce-rows": produce_rows,
        "produce-arrow": produce_arrow,
    }
    with strand.attach_ring(int(fd)) as ring:
        roles[role](ring, count, point)


if __name__ == "__main__":
    main()
