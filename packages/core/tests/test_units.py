from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sennit_core.errors import UsageError
from sennit_core.units import (
    GIB,
    KIB,
    MIB,
    format_bytes,
    format_duration,
    parse_bytes,
    parse_duration,
)

UNITS = st.sampled_from(["", "B", "kB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB", "mib", "GIB"])


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("64MiB", 64 * MIB),
        ("1.5 GB", 1_500_000_000),
        ("0.1MB", 100_000),
        (" 2 kib ", 2 * KIB),
        (".5GiB", GIB // 2),
        ("4096", 4096),
        (7, 7),
    ],
)
def test_sizes(text: Any, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    "text", ["", "MiB", "-1", "1e3", "1 MiBs", "١", "1,5MB", "9" * 5000, -1, 1.5, True, None]
)
def test_an_invalid_size_is_refused(text: Any) -> None:
    with pytest.raises(UsageError):
        parse_bytes(text)


@given(st.integers(0, 10**6), UNITS)
def test_whole_sizes_are_exact(number: int, unit: str) -> None:
    assert parse_bytes(f"{number}{unit}") == number * parse_bytes(f"1 {unit}")


@given(st.integers(0, 2**60))
def test_formatted_size_reads_back_within_its_precision(count: int) -> None:
    assert parse_bytes(format_bytes(count)) == pytest.approx(count, rel=0.06)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (64 * MIB, "64.0 MiB"),
        (MIB - 1, "1.0 MiB"),
        (2**60, "1024.0 PiB"),
        (-2048, "-2.0 KiB"),
    ],
)
def test_sizes_for_people(count: int, text: Any) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1.5s", 1.5),
        ("500ms", 0.5),
        ("2m", 120),
        ("2 min", 120),
        ("1h", 3600),
        ("1d", 86400),
        ("250us", 0.00025),
        ("0.1s", 0.1),
        ("3", 3),
        (0.25, 0.25),
    ],
)
def test_durations(text: Any, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "1 week", "1M", float("nan"), float("inf"), -1, None]
)
def test_an_invalid_duration_is_refused(text: Any) -> None:
    with pytest.raises(UsageError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 µs"),
        (0.00002, "20 µs"),
        (0.85, "850 ms"),
        (0.9999, "1.0 s"),
        (12.34, "12.3 s"),
        (59.96, "1 m 00 s"),
        (245, "4 m 05 s"),
        (7380, "2 h 03 m"),
        (3599.7, "1 h 00 m"),
        (-2, "-2.0 s"),
    ],
)
def test_durations_for_people(seconds: float, text: Any) -> None:
    assert format_duration(seconds) == text
