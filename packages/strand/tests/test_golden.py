"""Golden bytes of whole rings, and a second reader that knows the specification and nothing else."""

import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest

import strand

SCHEMA = strand.build_schema(
    [("id", "u32"), {"name": "note", "type": "utf8", "nullable": True}, ("samples", "i32_array")]
)
FIRST = [(1, "one", [1, -1]), (2, None, []), (3, "drei", [7])]
SECOND = [(4, "x" * 20, [5, 6]), (5, "y" * 9, [8] * 3)]  # the last array wraps past a skip mark

GOLDEN = {
    5: {
        0: "4e525453 05000000 644ba677 18000000 04000000 40000000 2fd59445"
        "05000000 05000000 03000000 01000000 4c000000 4c000000 00000000"
        + "ffffff7f" * 8
        + "0e000000 0300 01000400 08010800 0c001000 23000000"
        + b'{"columns":["id","note","samples"]}'.hex(),
        3136: "0500000000000000 0500000000000000 4c00000000000000 4c00000000000000",
        3200: "0000000000000000 01000000 00000000",
        3264: "0300000000000000",
        4096: "01000000 05000000 30000000 09000000 40000000 0c000000"
        "00000000 02000000 00000000 00000000 0c000000 00000000"
        "01000000 03000000 0c000000 04000000 10000000 04000000"
        "01000000 04000000 14000000 14000000 28000000 08000000",
        4192: "08000000 08000000 08000000 64726569 07000000"
        + "78" * 20
        + "05000000 06000000"
        + "79" * 9
        + "ffff 07000000 00",
    },
    6: {
        0: "4e525453 06000000 ac1ebaa7 28000000 04000000 00010000 303ae67a"
        + "00000000" * 7
        + "ffffff7f" * 8
        + "0e000000 0300 01000400 08010800 0c001800 23000000"
        + b'{"columns":["id","note","samples"]}'.hex(),
        3136: "0500000000000000 0500000000000000 0c01000000000000 0c01000000000000",
        3200: "0000000000000000 01000000 00000000",
        3264: "0300000000000000",
        4096: "01000000 05000000 c800000000000000 09000000 00000000 0001000000000000 0c000000"
        "00000000 00000000 02000000 0000000000000000 00000000 00000000 4800000000000000"
        "00000000 00000000 01000000 03000000 4800000000000000 04000000 00000000"
        "8000000000000000 04000000 00000000 01000000 04000000 8400000000000000"
        "14000000 00000000 c000000000000000 08000000 00000000",
        4256: "080000000800000008000000" + "00" * 52 + "01000000 ffffffff" + b"drei".hex(),
    },
}


def ring_bytes(version: Any, heap: int) -> bytes:
    with (
        strand.open_ring(SCHEMA, 4, heap, version=version) as ring,
        ring.consumer() as view,
        ring.producer() as writer,
    ):
        writer.write_record_batch(FIRST)
        view.acknowledge_read(3)
        writer.write_record_batch(SECOND)
        return bytes(ring.memory)


@pytest.mark.parametrize(("version", "heap"), [(5, 64), (6, 256)])
def test_a_ring_has_the_bytes_that_were_agreed(version: Any, heap: int) -> None:
    found = ring_bytes(version, heap)
    for at, text in GOLDEN[version].items():
        expected = bytes.fromhex(text)
        assert found[at : at + len(expected)] == expected, f"at byte {at}"


def read_as_v5(memory: bytes) -> Iterator[dict[str, Any]]:
    """Read every committed, unacknowledged record by the v5 text alone: words 7-13, u32 pointers."""
    stride, capacity, heap_bytes = struct.unpack_from("<3I", memory, 12)
    _, commit, read = struct.unpack_from("<3i", memory, 28)
    heap = 4096 + capacity * stride
    size = struct.unpack_from("<I", memory, 88)[0]
    count = struct.unpack_from("<H", memory, 92)[0]
    offsets = [struct.unpack_from("<H", memory, 96 + 4 * i)[0] for i in range(count)]
    json_bytes = struct.unpack_from("<I", memory, 92 + size)[0]
    names = json.loads(memory[96 + size : 96 + size + json_bytes])["columns"]

    def payload(at: int) -> bytes:
        offset, length = struct.unpack_from("<IH", memory, at)
        start = heap + offset % heap_bytes
        return memory[start : start + length]

    for seq in range(read, commit):
        slot = 4096 + (seq & (capacity - 1)) * stride
        note = payload(slot + offsets[1]).decode() if memory[slot] & 1 else None
        samples = payload(slot + offsets[2])
        values = (
            struct.unpack_from("<I", memory, slot + offsets[0])[0],
            note,
            list(struct.unpack(f"<{len(samples) // 4}i", samples)),
        )
        yield dict(zip(names, values, strict=True))


def test_a_reader_of_the_v5_text_alone_follows_our_v5_ring() -> None:
    records = list(read_as_v5(ring_bytes(5, 64)))
    assert records == [dict(zip(SCHEMA.names, row, strict=True)) for row in SECOND]


def test_v5_heap_pointers_wrap_at_two_to_the_32() -> None:
    with (
        strand.open_ring(strand.build_schema([("b", "bytes")]), 4, 64, version=5) as ring,
        ring.producer() as writer,
    ):
        assert ring.map.heap_bytes == 64
        assert writer.payload_bytes_max == 32
