"""What a lake stores, what it can give back, and what is wrong with its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lake import Lake
from lake.cli import main
from lake.maintenance.doctor import examine

Captured = pytest.CaptureFixture[str]


def levels(folder: Path) -> dict[str, str]:
    return {found.check: found.level for found in examine(folder, lambda: Lake(folder))}


def make(folder: Path) -> None:
    with Lake(folder) as lake:
        lake.sql("CREATE TABLE t AS SELECT 1 AS a")
        lake.sql("INSERT INTO t VALUES (2)")
        lake.sql("DELETE FROM t WHERE a = 1")


@pytest.mark.slow
def test_statistics_say_what_expiry_and_compaction_give(lake: Lake) -> None:
    lake.sql("CREATE TABLE t AS SELECT 1 AS a")
    for number in (2, 3, 4):
        lake.sql(f"INSERT INTO t VALUES ({number})")
    (stats,) = lake.storage.usage("t")
    assert (stats.rows, stats.shards, stats.small_shards, stats.versions) == (4, 4, 4, 4)
    assert (stats.stored_bytes, stats.reclaimable_bytes) == (stats.bytes, 0)
    lake.sql("UPDATE t SET a = a + 10 WHERE a < 3")
    lake.sql("UPDATE t SET a = a + 10 WHERE a = 3")
    (stats,) = lake.storage.usage("t")
    assert stats.stored_bytes - stats.bytes == stats.reclaimable_bytes
    lake.tag("t", "before", 5)
    (tagged,) = lake.storage.usage()
    assert 0 < tagged.reclaimable_bytes < stats.reclaimable_bytes

    lake.expire("t")
    (expired,) = lake.storage.usage()
    assert tagged.stored_bytes - expired.stored_bytes == tagged.reclaimable_bytes
    assert (expired.reclaimable_bytes, expired.versions) == (0, 2)


@pytest.mark.slow
def test_a_healthy_lake_has_no_error(tmp_path: Path) -> None:
    make(tmp_path / "d")
    found = levels(tmp_path / "d")
    assert set(found.values()) == {"ok", "warning"}
    assert found["last end"] == found["catalog"] == found["permissions"] == "ok"
    with Lake(tmp_path / "d") as lake:
        list(lake.scrubber.run_pass(rate_bytes=None))
    assert set(levels(tmp_path / "d").values()) == {"ok"}


@pytest.mark.slow
def test_each_problem_is_found_with_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    assert levels(folder) == {"folder": "error"}
    make(folder)
    with Lake(folder):
        assert levels(folder)["open"] == "error"
    folder.chmod(0o755)
    (folder / "lake" / "ended-cleanly").unlink()
    found = levels(folder)
    assert (found["permissions"], found["last end"]) == ("warning", "warning")
    with Lake(folder) as lake:
        path = lake.objects.place(lake.catalog.manifest("t").snapshot.shards[0].object)
    path.chmod(0o600)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    with Lake(folder) as lake:
        assert lake.verify().findings
    assert levels(folder)["dataset t"] == levels(folder)["quarantine"] == "error"
    shutil.rmtree(folder / "lake" / "objects")
    assert levels(folder)["layout"] == "error"


@pytest.mark.slow
def test_the_verbs_print_them(tmp_path: Path, capsys: Captured) -> None:
    data = ["--data", str(tmp_path / "d")]
    make(tmp_path / "d")
    assert main(["stats", *data]) == 0
    assert "reclaimable" in capsys.readouterr().out
    assert main(["stats", "t", "--json", *data]) == 0
    assert json.loads(capsys.readouterr().out)["datasets"][0]["versions"] == 3
    assert main(["gc", "--dry-run", *data]) == 0
    assert capsys.readouterr().out == "0 objects, 0 B, would be deleted\n"
    assert main(["doctor", *data]) == 0
    assert "lake scrub" in capsys.readouterr().out
    assert main(["doctor", "--data", "/nowhere"]) == 1
    assert "lake init" in capsys.readouterr().out


@pytest.mark.slow
def test_gc_deletes_what_no_version_uses(tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "d"
    make(folder)
    with Lake(folder) as lake:
        with lake.objects.open_writer(bounded=True) as writer:
            writer.write(b"nothing refers to this")
            orphan = writer.commit().object
        kept = set(lake.objects) - {orphan}
    data = ["--data", str(folder), "--json"]
    assert main(["gc", "--dry-run", *data]) == 0
    assert json.loads(capsys.readouterr().out)["objects"] == 1
    assert main(["gc", *data]) == 0
    assert json.loads(capsys.readouterr().out)["objects"] == 1
    with Lake(folder) as lake:
        assert set(lake.objects) == kept
        assert lake.sql("FROM t").rows == [(2,)]
