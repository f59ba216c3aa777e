"""Byte files that Python and TypeScript both write and both read (packages/strand/js/tests/golden.test.ts).

`golden/rings.json` says what was written into each ring; `golden/<name>.bin` is the ring. After a
change that must change the bytes, `python packages/strand/tests/test_golden_files.py` writes them.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

import strand

FOLDER = Path(__file__).with_name("golden")
RINGS: list[dict[str, Any]] = json.loads((FOLDER / "rings.json").read_text(encoding="utf-8"))
BY_NAME = pytest.mark.parametrize("recipe", RINGS, ids=lambda recipe: recipe["name"])

# Holders of roles, bells and counts of sleeps differ from run to run: (offset, bytes).
OF_THE_RUN = (
    (3076, 20),
    (3168, 32),
    (3216, 4),
    *((3264 + 64 * index + at, size) for index in range(8) for at, size in ((16, 4), (24, 32))),
)


def values(row: list[Any]) -> list[Any]:
    """Convert a row of the recipe to Python's values."""
    return [value_of(value) for value in row]


def value_of(value: Any) -> Any:
    if isinstance(value, dict) and "i64" in value:
        return int(value["i64"])
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) and "hex" in value else value


def write_ring(recipe: dict[str, Any]) -> bytes:
    """Write a ring as its recipe says, and return its bytes without those of this run."""
    schema = strand.build_schema(recipe["schema"])
    made = strand.compute_map(
        schema,
        recipe["records"],
        recipe["heap"],
        version=recipe["version"],
        metadata=recipe.get("metadata"),
        query=recipe.get("query"),
        estimated_records=recipe.get("estimatedRecords"),
    )
    memory = bytearray(made.total_bytes)
    strand.init_header(memory, made)
    preset(memory, **recipe.get("preset", {}))
    with strand.attach_ring(buffer=memory) as ring:
        view, writer = ring.consumer(), ring.producer()
        for step in recipe["steps"]:
            if "write" in step:
                writer.write_record_batch([values(row) for row in step["write"]])
            elif "acknowledge" in step:
                view.acknowledge_read(step["acknowledge"])
            else:
                writer.finalize()
        view.close()
        written = bytearray(memory)
    for at, size in OF_THE_RUN:
        written[at : at + size] = bytes(size)
    return bytes(written)


def preset(memory: bytearray, records: int = 0, heap: int = 0) -> None:
    """Let a ring look as if it had carried that much already."""
    struct.pack_into("<4Q", memory, 3136, records, records, heap, heap)
    struct.pack_into("<Q", memory, 3224, records)


def plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) and value.format == "B" else listed(value)


def listed(value: Any) -> Any:
    return list(value) if isinstance(value, memoryview) else value


@BY_NAME
def test_writing_produces_the_golden_bytes(recipe: dict[str, Any]) -> None:
    written = write_ring(recipe)
    golden = (FOLDER / f"{recipe['name']}.bin").read_bytes()
    different = [
        at for at, pair in enumerate(zip(written, golden, strict=True)) if len({*pair}) > 1
    ]
    assert different == []


@BY_NAME
def test_the_golden_bytes_read_as_the_written_values(recipe: dict[str, Any]) -> None:
    memory = bytearray((FOLDER / f"{recipe['name']}.bin").read_bytes())
    with strand.attach_ring(buffer=memory) as ring, ring.consumer() as view:
        assert ring.map.metadata.get("source") == recipe.get("metadata", {}).get("source")
        assert ring.map.query == recipe.get("query")
        cursor = view.allocate_cursor()
        start = view.window_start
        for at, row in enumerate(recipe["unread"]):
            assert cursor.seek(start + at)
            assert [plain(value) for value in cursor.to_tuple()] == values(row)
        assert view.committed_count == start + len(recipe["unread"])


if __name__ == "__main__":
    for each in RINGS:
        (FOLDER / f"{each['name']}.bin").write_bytes(write_ring(each))
