"""The `strand` command."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import strand
from strand.cli import main


@pytest.fixture
def named() -> Iterator[strand.Ring]:
    schema = strand.build_schema(
        [("id", "u32"), {"name": "note", "type": "utf8", "nullable": True}]
    )
    with strand.open_ring(schema, 8, 1024, name="test-cli") as ring, ring.producer() as writer:
        writer.write_record_batch([(1, "a"), (2, None)])
        yield ring


def test_inspect_shows_layout_counters_owners_and_fields(
    named: strand.Ring, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "test-cli"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "v6, 8 slots",
        "streaming",
        "commit 2",
        "producer",
        "alive",
        "note: utf8, nullable",
    ):
        assert part in shown


def test_inspect_reads_a_descriptor_of_a_process(
    named: strand.Ring, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", f"/proc/self/fd/{named.fileno()}", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["counters"]["commit"] == 2
    assert [owner["state"] for owner in facts["owners"]] == ["alive", "alive", "vacant"]


def test_ls_lists_rings_and_names_broken_ones(
    named: strand.Ring, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = strand.segment.FOLDER / "strand-test-cli-broken"
    broken.write_bytes(bytes(5000))
    try:
        assert main(["ls", "--prefix", "test-cli"]) == 0
        lines = capsys.readouterr().out.splitlines()
    finally:
        broken.unlink()
    assert "0/2 read" in lines[0]
    assert "damaged" in lines[1]


def test_cleanup_keeps_what_is_held(named: strand.Ring, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cleanup", "--prefix", "test-cli"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["inspect", "test-cli"]) == 0


def test_cleanup_removes_what_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    orphan = strand.segment.FOLDER / "strand-test-cli-orphan"
    orphan.write_bytes(bytes(5000))
    assert main(["cleanup", "--prefix", "test-cli-orphan"]) == 0
    assert capsys.readouterr().out == f"removed {orphan}\n"
    assert not orphan.exists()


def test_a_ring_that_is_not_there_is_an_error_with_a_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["inspect", "test-nothing"]) == 1
    assert "test-nothing" in capsys.readouterr().err
