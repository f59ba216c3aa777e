"""The table of field types, and the files that are written from it."""

import subprocess
import sys
from pathlib import Path

import pytest

import strand
from strand.fields import FIELD_TYPES

WRITER = Path(__file__).parents[3] / "tools" / "strand_types.py"


@pytest.mark.skipif(not WRITER.is_file(), reason="the tools are not here")
def test_generated_files_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, WRITER, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# The numbers in the headers of rings and files: one that changes makes old ones unreadable.
WIRE_TAGS = {
    "i32": 0,
    "u32": 1,
    "i64": 2,
    "f32": 3,
    "f64": 4,
    "u16": 5,
    "u8": 6,
    "bool8": 7,
    "utf8": 8,
    "utf8_ref": 9,
    "json": 10,
    "bytes": 11,
    "i32_array": 12,
    "f32_array": 13,
}


def test_tags_are_those_of_the_wire() -> None:
    assert {kind.name: kind.tag for kind in FIELD_TYPES.values()} == WIRE_TAGS


@pytest.mark.parametrize("name", FIELD_TYPES)
def test_each_type_has_a_getter_with_its_return_type(name: str) -> None:
    getter = getattr(strand.RecordCursor, FIELD_TYPES[name].getter)
    assert f"of a `{name}` field" in getter.__doc__
