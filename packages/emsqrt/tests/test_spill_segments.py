"""Segments on a local disk: written blocks round trip, damaged ones are refused."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsqrt.spill import (
    Segment,
    SpillDamaged,
    SpillError,
    SpillFull,
    SpillManager,
    default_spill_dir,
)
from emsqrt.spill.area import stored_bytes
from emsqrt.spill.local import LocalStore
from emsqrt.spill.segment import ENTRIES_MAX
from emsqrt.spill.testing import FaultyDisk
from sennit_core.errors import Closed, UsageError

SCHEMA = 0xFEEDFACECAFEBEEF


@pytest.fixture(scope="module")
def disk() -> Path:
    """A folder on a disk; the temporary one may be memory, which is no place to spill."""
    return default_spill_dir() / "tests"


@pytest.fixture
def spill(disk: Path) -> Iterator[SpillManager]:
    with SpillManager(disk) as opened:
        yield opened


def write(spill: SpillManager, blocks: list[bytes]) -> Segment:
    with spill.create("run", SCHEMA) as writer:
        for rows, block in enumerate(blocks, 1):
            writer.append(block, rows)
        return writer.finish()


def read(spill: SpillManager, segment: Segment, start: int = 0) -> list[bytes]:
    found: list[bytes] = []
    buffer = bytearray(segment.block_raw_max)
    with spill.open(segment) as reader:
        reader.seek(start)
        while (result := reader.read_into(buffer)) != (0, 0):
            assert result[1] == start + len(found) + 1
            found.append(bytes(buffer[: result[0]]))
    return found


def text(size: int) -> bytes:
    return (b"the quick brown fox jumps over the lazy dog, line %d\n" * 1) * (size // 50)


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@given(
    st.lists(st.binary(min_size=1, max_size=2000), max_size=8),
    st.sampled_from(["auto", "lz4", "zstd", "none"]),
)
@settings(max_examples=40)
def test_blocks_round_trip(disk: Path, blocks: list[bytes], codec: str) -> None:
    with SpillManager(disk, codec=codec) as spill:  # type: ignore[arg-type]
        segment = write(spill, blocks)
        assert read(spill, segment) == blocks
        assert segment.rows == sum(range(1, len(blocks) + 1))


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_only_compressible_blocks_are_compressed(disk: Path, codec: str) -> None:
    blocks = [text(200_000), noise(200_000), text(90_000), noise(1000)]
    with SpillManager(disk, codec=codec) as spill:  # type: ignore[arg-type]
        segment = write(spill, blocks)
        assert read(spill, segment) == blocks
        assert noise(1000)[:500] in (_file(spill, segment)).read_bytes()
    assert 200_000 < segment.blocks_bytes < 310_000


def test_after_misses_fewer_blocks_are_tried(spill: SpillManager) -> None:
    from emsqrt.spill.compression import Packer

    packer = Packer("lz4", is_remote=False)
    scratch = memoryview(bytearray(100_000))
    codecs = [packer.pack(memoryview(noise(2000)), scratch)[0] for _ in range(11)]
    assert codecs == [0] * 11
    assert packer.pack(memoryview(text(2000)), scratch)[0] == 0  # not tried just now
    for _ in range(200):
        codec, _ = packer.pack(memoryview(text(2000)), scratch)
    assert codec == 1


def test_auto_compresses_for_networks_and_slow_disks_only() -> None:
    from emsqrt.spill.compression import Packer

    assert Packer("auto", is_remote=True).compresses
    local = Packer("auto", is_remote=False)
    assert not local.compresses
    local.measured(1 << 30, 3.0)
    assert not local.compresses
    local.measured(1 << 30, 30.0)
    assert local.compresses


@pytest.mark.sample(2)
@pytest.mark.parametrize("block", [0, 1, 4095, 4096, 9_999, 12_000])
def test_a_reader_seeks_by_an_index_of_bounded_size(spill: SpillManager, block: int) -> None:
    with spill.create("many") as writer:
        for number in range(12_000):
            writer.append(number.to_bytes(4, "little"), 1)
        assert len(writer._index) <= ENTRIES_MAX
        segment = writer.finish()
    with spill.open(segment) as reader:
        reader.seek(block)
        buffer = bytearray(4)
        for number in range(block, min(block + 3, 12_000)):
            assert reader.read_into(buffer) == (4, 1)
            assert int.from_bytes(buffer, "little") == number


def test_a_segment_is_found_again_by_its_trailer(spill: SpillManager) -> None:
    segment = write(spill, [b"abc", b"defg"])
    assert spill.adopt(segment.name, segment.size_bytes) == segment
    assert Segment.from_json(segment.to_json()) == segment


def test_files_are_this_users_alone_and_go(disk: Path) -> None:
    spill = SpillManager(disk)
    segment = write(spill, [b"abc"])
    path = _file(spill, segment)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    spill.remove(segment)
    assert not path.exists()
    spill.close()
    assert not path.parent.exists()


def test_an_unfinished_segment_leaves_nothing(spill: SpillManager) -> None:
    with spill.create("run") as writer:
        writer.append(b"abc", 1)
    assert spill.stats.live_bytes == 0
    with pytest.raises(Closed):
        writer.append(b"abc", 1)


def test_stats_count_stored_and_read_bytes(disk: Path) -> None:
    with SpillManager(disk, codec="none") as spill:
        first = write(spill, [bytes(1000)] * 3)
        second = write(spill, [bytes(500)])
        read(spill, first)
        spill.remove(first)
        stats = spill.stats
        assert stats.raw_bytes == 3500
        assert stats.written_bytes == stats.peak_bytes == first.size_bytes + second.size_bytes
        assert (stats.read_bytes, stats.segments) == (3000, 2)
        assert stats.live_bytes == second.size_bytes


def test_a_quota_ends_the_work_and_is_freed_by_removing(disk: Path) -> None:
    with SpillManager(disk, quota_bytes=4000) as spill:
        first = write(spill, [noise(3000)])
        with pytest.raises(SpillFull, match="quota") as caught:
            write(spill, [noise(2000)])
        assert caught.value.quota_bytes == 4000
        assert isinstance(caught.value, SpillError)
        spill.remove(first)
        write(spill, [noise(2000)])


def test_a_block_that_met_the_quota_may_be_tried_again(disk: Path) -> None:
    with SpillManager(disk, quota_bytes=4000) as spill, spill.create("run", SCHEMA) as writer:
        first = write(spill, [noise(3000)])
        with pytest.raises(SpillFull):
            writer.append(noise(2000), 1)
        spill.remove(first)
        writer.append(noise(2000), 1)
        assert read(spill, writer.finish()) == [noise(2000)]


def test_no_block_follows_one_that_failed(disk: Path) -> None:
    store = LocalStore(disk, disk=FaultyDisk(3, "full"))
    with SpillManager("", store=store) as spill, spill.create("run") as writer:
        writer.append(b"abc", 1)
        with pytest.raises(SpillFull):
            writer.append(b"def", 1)
        with pytest.raises(Closed):
            writer.append(b"ghi", 1)
        with pytest.raises(Closed):
            writer.finish()
        assert spill.stats.live_bytes == 0


def test_a_reader_that_has_too_little_room_says_so(spill: SpillManager) -> None:
    segment = write(spill, [b"abcdef"])
    with spill.open(segment) as reader:
        assert reader.next_bytes() == 6
        with pytest.raises(ValueError, match="6 bytes"):
            reader.read_into(bytearray(5))


def test_the_cancel_check_runs_before_each_block(disk: Path) -> None:
    checks: list[int] = []
    with SpillManager(disk, check=lambda: checks.append(1)) as spill:
        read(spill, write(spill, [b"a", b"b"]))
    assert len(checks) == 2 + 3


def test_scratch_that_was_handed_in_is_all_that_is_used(disk: Path) -> None:
    scratch = memoryview(bytearray(64 << 10))
    with SpillManager(disk, codec="lz4", scratch=scratch) as spill:
        blocks = [text(60_000), text(500_000)]
        assert read(spill, write(spill, blocks)) == blocks
        assert spill.buffer_bytes == 0


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 81])
def test_names_that_leave_the_folder_are_refused(spill: SpillManager, name: str) -> None:
    with pytest.raises(UsageError, match="invalid segment name"):
        spill.create(name)


@pytest.mark.parametrize("tenant", ["", "..", "a/b", "Ä", "UPPER", "x" * 64])
def test_tenants_are_names(disk: Path, tenant: str) -> None:
    with pytest.raises(UsageError, match="names no tenant"):
        SpillManager(disk, tenant=tenant)


def test_tenants_have_folders_of_their_own(disk: Path) -> None:
    with SpillManager(disk, tenant="alice") as spill:
        segment = write(spill, [b"abc"])
        assert _file(spill, segment).is_relative_to(disk / "alice")


def test_the_spill_of_tenants_is_counted_over_all_runs(disk: Path) -> None:
    root = disk / "shared"
    with (
        SpillManager(root, tenant="alice") as first,
        SpillManager(root, tenant="alice") as second,
        SpillManager(root) as nobodys,
    ):
        sizes = [write(spill, [b"abc"]).size_bytes for spill in (first, second, nobodys)]
        assert stored_bytes(root) == {"alice": sizes[0] + sizes[1], "": sizes[2]}
    assert stored_bytes(root) == {}


@pytest.mark.slow
@given(st.data())
@settings(max_examples=60)
def test_any_damage_is_found(disk: Path, data: st.DataObject) -> None:
    blocks = [text(3000), noise(300), b"x"]
    with SpillManager(disk, codec="lz4") as spill:
        segment = write(spill, blocks)
        path = _file(spill, segment)
        stored = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, segment.blocks_bytes - 1))
        stored[place] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(stored)
        with pytest.raises(SpillDamaged):
            read(spill, segment)


@pytest.mark.parametrize("change", ["cut", "longer", "gone", "another's"])
def test_a_file_that_is_another_is_refused(spill: SpillManager, change: str) -> None:
    segment, other = write(spill, [noise(100)]), write(spill, [noise(100)])
    changes: dict[str, Callable[[Path], object]] = {
        "cut": lambda path: os.truncate(path, segment.size_bytes - 1),
        "longer": lambda path: os.truncate(path, segment.size_bytes + 1),
        "gone": os.unlink,
        "another's": lambda path: path.write_bytes(_file(spill, other).read_bytes()),
    }
    changes[change](_file(spill, segment))
    with pytest.raises(SpillDamaged):
        read(spill, segment)


@given(st.data())
@settings(max_examples=40)
def test_a_damaged_index_is_found(disk: Path, data: st.DataObject) -> None:
    with SpillManager(disk) as spill:
        segment = write(spill, [b"abc", b"defg", b"h"])
        path = _file(spill, segment)
        stored = bytearray(path.read_bytes())
        place = data.draw(st.integers(segment.blocks_bytes, len(stored) - 1))
        stored[place] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(stored)
        with spill.open(segment) as reader, pytest.raises(SpillDamaged):
            reader.seek(1)


def test_blocks_in_another_order_are_refused(spill: SpillManager) -> None:
    segment = write(spill, [noise(100), noise(100)[::-1]])
    path = _file(spill, segment)
    stored = path.read_bytes()
    path.write_bytes(stored[164:328] + stored[:164] + stored[328:])
    with pytest.raises(SpillDamaged):
        read(spill, segment)


def test_a_closed_spill_refuses(disk: Path) -> None:
    spill = SpillManager(disk)
    segment = write(spill, [b"abc"])
    reader = spill.open(segment)
    spill.close()
    spill.close()
    for use in (lambda: spill.create("x"), lambda: spill.open(segment), reader.next_bytes):
        with pytest.raises(Closed):
            use()


def _file(spill: SpillManager, segment: Segment) -> Path:
    return spill.store.folder / segment.name  # type: ignore[attr-defined,no-any-return]
