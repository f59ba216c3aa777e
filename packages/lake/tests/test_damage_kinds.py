"""Flipped bytes in every kind of file that a lake folder has: found, or without effect on an answer.

The files are those that a rich history leaves, so a new kind fails here until it is classified.
"""

from __future__ import annotations

import random
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.access.rules import PolicyRule
from lake.interop.iceberg import publish_iceberg
from sennit_core.errors import Corrupt, Denied, NotFound

from .conftest import put, upload_file
from .test_damage import flip

PASSPHRASE = "a passphrase of many words"
KINDS = {
    r"lake/objects/../[0-9a-f]{64}": "found",  # shards, encrypted ones, manifests, lists of shards
    # A query refuses it, and a scrub writes it anew (`test_damage`).
    r"lake/objects/../[0-9a-f]{64}\.chunks": "kept",
    r"elkyn/sys/data\.mdb": "kept",
    r"lake/keys\.json": "kept",
    r"lake/node\.key": "kept",
    r"lake/(iceberg|rejects)/.*": "kept",  # derived, and quoted text: no answer comes from them
    r"uploads/.*": "kept",  # verified before they become part of a dataset (`test_parts`)
    r"(disk-full\.reserve|lake/(ended-cleanly|statements\.lock)|elkyn/sys/lock(\.mdb)?|elkyn/sys/ephemeral/.*|spill/\.sweep)": "kept",
}
"""What a flip in a file does, by its path: `found` by a scrub, or no other effect than an error."""
QUERIES = (
    "SELECT count(*), sum(a), min(b), max(b) FROM t",
    "SELECT sum(a) FROM t AT (VERSION => 1)",
    "SELECT * FROM small ORDER BY ALL",
    "SELECT * FROM enc ORDER BY ALL",
    "SELECT n FROM seen",
)


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory, pool: ExecutorPool) -> Path:
    """The folder of a closed lake with every feature that writes a file."""
    folder = tmp_path_factory.mktemp("rich") / "data"
    with Lake(folder, pool=pool, passphrase=PASSPHRASE) as lake:
        # More than a chunk, so that there is a list of hashes.
        lake.sql("CREATE TABLE t AS SELECT i AS a, md5(i::VARCHAR) AS b FROM range(150000) r(i)")
        for number in range(70):  # more shards than a manifest holds itself
            lake.append("small", pa.table({"a": [number]}))
        lake.sql("DELETE FROM t WHERE a = 5")
        lake.tag("t", "first", 1)
        lake.append("enc", pa.table({"a": [1, 2]}), encrypt=True)
        lake.sql("CREATE VIEW seen AS SELECT count(*) AS n FROM small")
        put(lake, "odd.csv", "n\n1\nx\n", options={"columns": {"n": "Int64"}, "onBadRow": "skip"})
        publish_iceberg(lake, "small")
        lake.set_policy("t", [PolicyRule("alice", rows="a > 10")])
        lake.purge("t", "a = 7")
        upload_file(lake, "waiting.csv", "a\n1\n2\n")
    return folder


def answers(folder: Path, pool: ExecutorPool) -> tuple[list[str], int]:
    """What a lake says of each query, and how many findings a scrub has; `corrupt` is a clear error."""
    try:
        with Lake(folder, pool=pool, passphrase=PASSPHRASE) as lake:
            return [_answer(lake, query) for query in QUERIES], len(lake.verify().findings)
    except (Corrupt, Denied):
        return ["corrupt"] * len(QUERIES), 1


def _answer(lake: Lake, query: str) -> str:
    try:
        return str(lake.sql(query).rows)
    except (Corrupt, Denied):
        return "corrupt"
    except NotFound:
        return "missing"  # it started silently empty, which no flip may do


def files(folder: Path) -> Iterator[tuple[Path, str]]:
    """The files of a folder, each with the pattern of its kind."""
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        name = path.relative_to(folder).as_posix()
        found = [kind for kind in KINDS if re.fullmatch(kind, name)]
        assert found, f"{name}: say in KINDS what damage to it does"
        yield path, found[0]


def test_every_kind_is_in_the_folder(rich: Path) -> None:
    assert {kind for _, kind in files(rich)} == set(KINDS)


def check(rich: Path, pool: ExecutorPool, flips: int, seed: int) -> None:
    chance, (right, findings) = random.Random(seed), answers(rich, pool)
    assert findings == 0
    assert not {"corrupt", "missing"} & set(right)
    by_kind: dict[str, list[Path]] = {}
    for path, kind in files(rich):
        if path.stat().st_size:
            by_kind.setdefault(kind, []).append(path)
    for kind, paths in by_kind.items():
        for path in chance.sample(paths, min(flips, len(paths))):
            # Executors remember the paths of the shards that they have verified.
            copy = Path(tempfile.mkdtemp(dir=rich.parent)) / "data"
            shutil.copytree(rich, copy)
            flip(copy / path.relative_to(rich), chance.randrange(path.stat().st_size))
            now, found = answers(copy, pool)
            shutil.rmtree(copy)
            assert all(
                each in (before, "corrupt") for each, before in zip(now, right, strict=True)
            ), f"{path}: {now}"
            assert KINDS[kind] != "found" or found, path


@pytest.mark.nightly  # opens a damaged lake for each kind of file
def test_a_flip_in_any_kind_of_file_changes_no_answer(rich: Path, pool: ExecutorPool) -> None:
    check(rich, pool, 2, seed=1)


@pytest.mark.nightly  # the same, for more files and places
def test_many_flips_in_any_kind_of_file_change_no_answer(rich: Path, pool: ExecutorPool) -> None:
    check(rich, pool, 6, seed=2)


def test_a_damaged_record_of_an_upload_costs_the_upload_alone(
    rich: Path, pool: ExecutorPool, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(rich, data)
    (record,) = (data / "uploads").rglob("upload.json")
    for text in (b'{"id', b"[]", b"3", b"{}", b"\xff", b""):
        record.write_bytes(text)
        with Lake(data, pool=pool, passphrase=PASSPHRASE) as lake:
            assert lake.sql("SELECT n FROM seen").value == 70
            with pytest.raises(Corrupt, match="the record of upload"):
                lake.parts.get(record.parent.name)
            assert lake.parts.list() == []
    with Lake(data, pool=pool, passphrase=PASSPHRASE) as lake:
        lake.parts.abort(record.parent.name)
    assert not record.parent.exists()
