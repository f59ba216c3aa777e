"""Facts about files are read once while the file is the same, and anew when it is not."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from emsqrt.io.file_facts import FileFacts, known_fact, remembering
from emsqrt.io.parquet_scan import infer_parquet_schema
from emsqrt.io.sources import open_source


def test_a_fact_is_read_once_for_each_file(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_text("x")
    looks: list[int] = []
    with remembering(FileFacts()):
        for path in (*paths, *paths):
            known_fact(open_source(path), "fact", lambda: looks.append(1), lambda _: 1)
    assert len(looks) == 2


def test_a_replaced_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    with remembering(FileFacts()):
        parquet.write_table(pa.table({"old": [1]}), path)
        assert infer_parquet_schema(path).names == ("old",)
        parquet.write_table(pa.table({"new": [1]}), path)
        assert infer_parquet_schema(path).names == ("new",)


def test_nothing_is_kept_without_remembering(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    looks: list[int] = []
    for _ in range(2):
        known_fact(open_source(tmp_path / "a"), "fact", lambda: looks.append(1), lambda _: 1)
    assert len(looks) == 2


def test_a_fact_of_many_files_counts_them_all(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(50)]
    for path in paths:
        path.write_text("x")
    facts = FileFacts(held_bytes_max=1 << 20)
    with remembering(facts):
        known_fact([open_source(path) for path in paths], "fact", lambda: 1, lambda _: 0)
    assert facts.held_bytes >= 50 * 256


def test_facts_need_a_bounded_memory() -> None:
    facts = FileFacts(held_bytes_max=64 << 10)
    for number in range(100):
        facts.find(number, lambda: "fact", lambda _: 4 << 10)
        facts.find(("large", number), lambda: "fact", lambda _: 1 << 20)
    assert 32 << 10 < facts.held_bytes <= 64 << 10
    assert facts.find(99, lambda: "looked again", lambda _: 1) == "fact"
    assert facts.find(0, lambda: "looked again", lambda _: 1) == "looked again"
