"""The table of field types, and the files that are written from it."""

import subprocess
import sys
from pathlib import Path

import pytest

import strand
from strand.schema import FIELD_TYPES

WRITER = Path(__file__).parents[3] / "tools" / "strand_types.py"


@pytest.mark.skipif(not WRITER.is_file(), reason="the tools are not here")
def test_what_is_written_from_the_table_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, WRITER, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_tags_are_consecutive() -> None:
    assert [kind.tag for kind in FIELD_TYPES.values()] == list(range(len(FIELD_TYPES)))


@pytest.mark.parametrize("name", FIELD_TYPES)
def test_each_type_has_a_getter_that_says_what_it_returns(name: str) -> None:
    getter = getattr(strand.RecordCursor, FIELD_TYPES[name].getter)
    assert f"of a `{name}` field" in getter.__doc__
