from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt._kernel import (
    JoinTable,
    KeySpec,
    MergeJoiner,
    Partitioner,
    join_cross,
    join_lines,
    join_side,
    key_run,
    mark_matched,
    null_extend_rows,
    pack_join_rows,
)
from emsqrt._kernel.testing import I64, TEXT, columns
from emsqrt.external.join_oracle import KIB, Joined, block, key, naive, numbered, read
from emsqrt.external.join_output import MARK, MATCHED, PAIRS, UNMATCHED
from emsqrt.external.matched_bits import MatchedBits
from emsqrt.spill import SpillManager

keys = st.lists(st.one_of(st.just(b""), st.integers(0, 20).map(key)), max_size=60)


def rows_of(packed: bytes | bytearray | memoryview) -> list[tuple[bytes, bytes]]:
    rows, at = [], 0
    while at < len(packed):
        row_bytes, key_bytes = struct.unpack_from("<II", packed, at)
        split = at + 8 + key_bytes
        rows.append((bytes(packed[at + 8 : split]), bytes(packed[split : at + row_bytes])))
        at += row_bytes
    return rows


@pytest.mark.slow
@given(found=keys, fan_out=st.integers(1, 9), level=st.integers(0, 3), number=st.integers(-1, 70))
def test_partitions_keep_their_rows_and_their_order(
    found: list[bytes], fan_out: int, level: int, number: int
) -> None:
    batch_rows = numbered(found, "x")
    memory = memoryview(bytearray(60 * (fan_out + 1)))  # two or three rows each
    partitioner = Partitioner(memory, fan_out, level)
    parts: list[list[tuple[bytes, bytes]]] = [[] for _ in range(fan_out + 1)]

    packed, at, sequence = block(batch_rows), 0, number
    while at < len(packed):
        at, full, sequence = partitioner.add_rows(packed, at, sequence)
        if full >= 0:
            start, stop, _ = partitioner.pop(full)
            parts[full] += rows_of(memory[start:stop])
    for part in range(fan_out + 1):
        start, stop, _ = partitioner.pop(part)
        parts[part] += rows_of(memory[start:stop])

    def as_stored(index: int, payload: bytes) -> bytes:
        return payload if number < 0 else (number + index).to_bytes(8, "big") + payload

    wanted = [(one, as_stored(at, payload)) for at, (one, payload) in enumerate(batch_rows)]
    assert parts[-1] == [row for row in wanted if not row[0]]
    assert sorted(row for part in parts for row in part) == sorted(wanted)
    homes = [{one for one, _ in part} for part in parts]
    assert sum(map(len, homes)) == len(set.union(*homes))  # a key has one home
    for one_part in parts:
        assert one_part == [row for row in wanted if row in one_part]


def test_levels_use_independent_bits() -> None:
    rows = numbered((key(n) for n in range(4000)), "x")
    memory = memoryview(bytearray(1 << 20))
    partitioner = Partitioner(memory, 8, 0)
    partitioner.add_rows(block(rows), 0)
    start, stop, _ = partitioner.pop(3)
    part = bytes(memory[start:stop])

    finer = Partitioner(memory, 8, 1)
    finer.add_rows(part, 0)

    counts = [finer.pop(number)[2] for number in range(8)]
    assert min(counts) > len(rows_of(part)) / 8 / 2


@given(left=keys, right=keys, out_bytes=st.integers(60, 200))
def test_a_table_continues_where_its_output_was_full(
    left: list[bytes], right: list[bytes], out_bytes: int
) -> None:
    one, other = numbered(left, "l"), numbered(right, "r")
    table = JoinTable(bytearray(16 * KIB))
    assert table.add_rows(block(other)) == len(block(other))
    table.index()
    found: list[Joined] = []
    at, probed, out = 0, block(one), bytearray(out_bytes)

    while at < len(probed):
        at, size, _, _ = table.probe(probed, at, out, PAIRS | UNMATCHED | MARK)
        found += read(bytes(out[:size]))
    done = False
    while not done:
        size, _, done = table.drain(out, False, PAIRS | MARK)
        found += read(bytes(out[:size]))

    assert found == naive("full", one, other)


@given(found=keys)
def test_distinct_keeps_the_first_row_of_each_key(found: list[bytes]) -> None:
    memory = memoryview(bytearray(16 * KIB))
    table = JoinTable(memory)
    table.add_rows(block(numbered(found, "x")), keys_only=True)

    table.distinct()

    wanted = [(one, b"") for one in dict.fromkeys(found) if one]
    assert rows_of(memory[: table.rows_bytes]) == wanted
    assert table.rows == len(wanted)


def test_a_table_inserts_what_fits_and_returns_where_it_stopped() -> None:
    packed = block(numbered((key(n) for n in range(100)), "x", 20))
    table = JoinTable(bytearray(1000))

    at = table.add_rows(packed)

    assert 0 < at < len(packed)
    assert at == table.rows_bytes
    assert table.rows == at // 37
    assert 1000 - 12 - 37 <= at + 12 * table.rows + 8 <= 1000


@given(data=st.binary(max_size=80), at=st.integers(0, 80), flags=st.integers(0, 255))
def test_no_bytes_lead_the_kernel_astray(data: bytes, at: int, flags: int) -> None:
    """Any block: rows are returned, or ValueError; nothing beyond it is touched."""
    rows, out = block(numbered([key(1), b""], "x", 9)), bytearray(200)

    def attempt(call: Callable[..., object], *arguments: object) -> None:
        with suppress(ValueError):
            call(*arguments)

    for one, other in ((data, rows), (rows, data), (data, data)):
        attempt(join_cross, one, at, other, 0, out, flags)
        attempt(MergeJoiner(flags).run, one, other, out, bytearray(99), True)
        table = JoinTable(bytearray(300))
        attempt(table.add_rows, other)
        table.index()
        attempt(table.probe, one, at, out, flags, bytearray(9))
        table.drain(out, bool(flags & 1), flags)
    attempt(null_extend_rows, data, at, out, False, flags, bytes(9))
    attempt(join_lines, data, at, out, b",", b"", b"")
    attempt(join_side, data, at, out, True, b"")
    attempt(key_run, data, at, key(1))
    attempt(mark_matched, bytearray(data), at, rows, 0, bool(flags & 1), key(1))
    attempt(mark_matched, bytearray(rows), 0, data, at, bool(flags & 1), key(1))
    attempt(Partitioner(bytearray(100), 2, 0).add_rows, data, at, flags)
    attempt(Partitioner(bytearray(100), 2, 0).add_whole, data, at, flags)


def test_bits_must_suffice_for_the_rows_of_a_block() -> None:
    table = JoinTable(bytearray(100))
    table.index()

    with pytest.raises(ValueError, match="bits"):
        table.probe(block(numbered([key(1)] * 9, "x")), 0, bytearray(99), MATCHED, bytearray(1), 7)


def test_a_null_in_any_key_column_leaves_the_key_empty() -> None:
    batch = columns((I64, [1, None, 3]), (TEXT, ["a", "b", None]), (I64, [7, 8, 9]))
    out = bytearray(500)

    size, rows = pack_join_rows(batch, KeySpec([(0, False, False), (1, False, False)]), [2], 0, out)

    assert rows == 3
    spec = KeySpec([(0, False, False), (1, False, False)])
    assert [one for one, _ in rows_of(out[:size])] == [spec.encode(batch, 0), b"", b""]
    assert [payload[1:] for _, payload in rows_of(out[:size])] == [
        number.to_bytes(8, "little") for number in (7, 8, 9)
    ]


def test_a_row_that_does_not_fit_is_no_endless_loop() -> None:
    batch = columns((TEXT, ["x" * 100]))

    with pytest.raises(ValueError, match="does not fit"):
        pack_join_rows(batch, KeySpec([(0, False, False)]), [0], 0, bytearray(100))


def test_joined_rows_become_lines_or_sides() -> None:
    out = bytearray(500)
    left, right = block([(b"", b"1,a"), (b"", b"2,b")]), block([(b"", b"x,y")])
    _, _, size, _ = join_cross(left, 0, right, 0, out)
    _, more, _, _ = null_extend_rows(left, 0, memoryview(out)[size:], False, 0)
    _, last, _, _ = null_extend_rows(right, 0, memoryview(out)[size + more :], True, 0)
    joined, text = bytes(out[: size + more + last]), bytearray(200)

    _, size, rows = join_lines(joined, 0, text, b";", b"-,-", b"?,?")
    _, right_size, _ = join_side(joined, 0, out, True, b"none")

    assert text[:size] == b"1,a;x,y\n2,b;x,y\n1,a;?,?\n2,b;?,?\n-,-;x,y\n"
    assert rows == 5
    assert [payload for _, payload in rows_of(out[:right_size])] == [
        *[b"x,y"] * 2,
        *[b"none"] * 2,
        b"x,y",
    ]


@pytest.mark.parametrize("start", range(8))
def test_a_table_without_rows_is_indexed_in_any_memory(start: int) -> None:
    """Memory that is unaligned and shorter than the alignment has no place for an index."""
    table = JoinTable(memoryview(bytearray(16))[start : start + 3])
    out = bytearray(100)
    table.index()
    _, size, rows, _ = table.probe(block([(b"key", b"row")]), 0, out, PAIRS | UNMATCHED)
    assert (len(rows_of(out[:size])), rows) == (1, 1)


@pytest.mark.slow
@given(blocks=st.lists(st.integers(1, 60), max_size=12), passes=st.integers(1, 3))
def test_matched_bits_outlast_their_window(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[int], passes: int
) -> None:
    spill_dir: Path = tmp_path_factory.mktemp("bits")
    with SpillManager(spill_dir, codec="none") as spill:
        bits = MatchedBits(memoryview(bytearray(10)), spill, "bits")
        wanted: set[int] = set()
        for round_ in range(passes + 1):
            bits.begin()
            seen, number = set(), 0
            for rows in blocks:
                window, first = bits.place(rows * 8, rows)
                for at in range(first, first + rows):
                    if window[at // 8] >> at % 8 & 1:
                        seen.add(number)
                    if (number + round_) % 7 == 0 and round_ < passes:
                        window[at // 8] |= 1 << at % 8
                    number += 1
            bits.end()
            assert seen == wanted
            wanted |= {n for n in range(number) if (n + round_) % 7 == 0}
        bits.close()
        assert spill.stats.live_bytes == 0
