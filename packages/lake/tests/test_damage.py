"""Damaged bytes: found before a response has any of them, and limited to one dataset."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from sennit_core.errors import Conflict, Corrupt, NotFound, SennitError, Unsupported
from sennit_core.hashing import sha256_hex

from .conftest import FLIGHTS, put
from .served_lake import Client, make_app

TRIPS = "city,km\nOslo,12\nRome,7\n"
ANSWER = [("AA", 1089), ("B6", 1576), ("UA", 200), ("UA", 1400)]
QUERY = "SELECT carrier, distance FROM flights ORDER BY carrier, distance"
ENGINES = ("duckdb", "emsqrt")


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Change one bit of a file in its place, as a disk does it."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes((byte ^ 1 << bit,)))


def shard_of(lake: Lake, dataset: str = "flights") -> Path:
    return lake.resolve(dataset)[1][0]


def manifest_of(lake: Lake, dataset: str = "flights") -> Path:
    """The object that describes the newest snapshot, found by its content."""
    head = lake.catalog.get(dataset).head
    (found,) = (
        path
        for path in map(lake.objects.place, lake.objects)
        if path.read_bytes().startswith(b"{") and f'"id":"{head}"'.encode() in path.read_bytes()
    )
    return found


@pytest.fixture
def two(flights: Lake) -> Lake:
    """A lake with a second dataset, which no damage of the first may cost."""
    put(flights, "trips.csv", TRIPS)
    return flights


def assert_others_work(lake: Lake) -> None:
    assert lake.sql("SELECT sum(km) FROM trips").value == 19


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_flipped_bit_in_a_shard_ends_the_query_by_name(two: Lake, engine: str) -> None:
    assert two.sql(QUERY, engine=engine).rows == ANSWER
    shard = shard_of(two)
    flip(shard, 40)

    with pytest.raises(Corrupt) as caught:
        two.sql(QUERY, engine=engine)

    assert f'dataset "flights": chunk 0 of shard 0 (object {shard.name}) is damaged' in str(
        caught.value
    )
    assert 'platform verify "flights"' in (caught.value.hint or "")
    assert_others_work(two)


@pytest.mark.parametrize("engine", ENGINES)
def test_times_set_back_do_not_hide_a_change(flights: Lake, engine: str) -> None:
    assert flights.sql(QUERY, engine=engine).rows == ANSWER
    shard = shard_of(flights)
    before = shard.stat()
    flip(shard, 40)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(Corrupt):
        flights.sql(QUERY, engine=engine)


def test_nothing_of_a_damaged_answer_is_emitted(flights: Lake) -> None:
    flip(shard_of(flights), 40)
    pieces: list[bytes] = []

    with pytest.raises(Corrupt), flights.run(QUERY) as execution:
        pieces.extend(bytes(piece) for piece in execution.payloads())

    assert pieces == []


def test_a_shard_that_was_repaired_is_read_again(flights: Lake) -> None:
    flip(shard_of(flights), 40)
    with pytest.raises(Corrupt):
        flights.sql(QUERY)
    flip(shard_of(flights), 40)

    assert flights.sql(QUERY).rows == ANSWER


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "empty": lambda path: os.truncate(path, 0),
    "missing": lambda path: path.unlink(),
    "a folder": lambda path: as_folder(path),
    "with hashes of another object": lambda path: path.with_name(f"{path.name}.chunks").write_bytes(
        b'{"chunks": 3}'
    ),
}
LIST_DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "changed": lambda path: flip(path, 30),
    "none": lambda path: path.write_bytes(b'{"chunks": 3}'),
}
LARGE = "a,b\n" + "".join(f"{i},{sha256_hex(b'%d' % i)}\n" for i in range(40_000))
"""A shard of more than one chunk, so that it has a list of their hashes."""


@pytest.mark.parametrize("kind", LIST_DAMAGE)
def test_a_changed_list_of_hashes_is_found(flights: Lake, kind: str) -> None:
    put(flights, "large.csv", LARGE)
    shard = shard_of(flights, "large")
    chunks = shard.with_name(f"{shard.name}.chunks")
    chunks.chmod(0o644)
    LIST_DAMAGE[kind](chunks)

    with pytest.raises(Corrupt, match='"large": the list of chunk hashes of shard 0'):
        flights.sql("SELECT max(b) FROM large")

    assert flights.sql(QUERY).rows == ANSWER
    assert flights.verify().findings == ()  # it is written anew


@pytest.mark.sample(3)
@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_changed_shard_is_corrupt(two: Lake, engine: str, kind: str) -> None:
    shard = shard_of(two)
    shard.chmod(0o644)
    DAMAGE[kind](shard)

    with pytest.raises(Corrupt, match=f'"flights".*shard 0 .object {shard.name}'):
        two.sql(QUERY, engine=engine)
    assert_others_work(two)


def test_a_damaged_manifest_costs_its_dataset_alone(two: Lake) -> None:
    manifest = manifest_of(two)
    flip(manifest, 60)

    with Lake(two.folder, tree=two.tree, pool=two.pool) as again:
        listed = {info.name: info.damaged for info in again.catalog.list()}
        with pytest.raises(Corrupt, match='dataset "flights": the manifest of snapshot'):
            again.sql(QUERY)
        with pytest.raises(Corrupt, match="flights"):
            again.resolve("flights")
        with pytest.raises(Conflict, match="exists"):
            again.catalog.check_free("Flights")
        assert again.sql("SELECT 'flights'").value == "flights"
        assert_others_work(again)

    assert listed["trips"] is None
    assert "manifest" in (listed["flights"] or "")


def test_a_damaged_manifest_keeps_every_object_until_its_dataset_is_deleted(two: Lake) -> None:
    shard, manifest = shard_of(two), manifest_of(two)
    flip(manifest, 60)

    with Lake(two.folder, tree=two.tree, pool=two.pool) as again:
        assert shard.exists(), "the damaged manifest may name it"
        trips = shard_of(again, "trips")
        again.delete("trips")
        assert trips.exists(), "as may this one"
        assert again.retention.withheld > 0
        again.delete("flights")
        assert not trips.exists()
        assert not manifest.exists()
        assert again.catalog.list() == []
    with Lake(two.folder, tree=two.tree, pool=two.pool) as again:
        assert list(again.objects) == []


def test_a_missing_manifest_is_damage(two: Lake) -> None:
    manifest_of(two).unlink()

    with Lake(two.folder, tree=two.tree, pool=two.pool) as again:
        with pytest.raises(Corrupt, match="manifest of snapshot"):
            again.sql(QUERY)
        assert_others_work(again)


def rename_in_row(tree: ElkynStore, id_: str) -> None:
    tree.set(f"/datasets/{id_}/name", "flighty")


def point_to_another_manifest(tree: ElkynStore, id_: str) -> None:
    (snapshot,) = tree.keys(f"/snapshots/{id_}")
    tree.set(f"/snapshots/{id_}/{snapshot}/manifest", "0" * 64)


ROWS: dict[str, Callable[[ElkynStore, str], object]] = {
    "another name": rename_in_row,
    "another count": lambda tree, id_: tree.set(f"/datasets/{id_}/rows", 5),
    "no columns": lambda tree, id_: tree.delete(f"/datasets/{id_}/schema"),
    "a scalar": lambda tree, id_: tree.set(f"/datasets/{id_}", 3),
    "no row": lambda tree, id_: tree.delete(f"/datasets/{id_}"),
    "no snapshots": lambda tree, id_: tree.delete(f"/snapshots/{id_}"),
    "another manifest": point_to_another_manifest,
}


@pytest.mark.slow
@pytest.mark.sample(3)
@pytest.mark.parametrize("kind", ROWS)
def test_a_damaged_row_costs_its_dataset_alone(two: Lake, kind: str) -> None:
    id_ = two.catalog.get("flights").id
    shard = shard_of(two)
    ROWS[kind](two.tree, id_)

    with Lake(two.folder, tree=two.tree, pool=two.pool) as again:
        for name in ("flights", id_):
            with pytest.raises(Corrupt, match='dataset "flights"'):
                again.sql(f'SELECT * FROM "{name}"')
        with pytest.raises(Corrupt):
            again.resolve("flights")
        (damaged,) = (info for info in again.catalog.list() if info.damaged)
        assert (damaged.id, damaged.name) == (id_, "flights")
        with pytest.raises(Conflict):
            again.catalog.check_free("flights")
        assert_others_work(again)
        assert again.sql("SHOW TABLES").rows
        columns = "SELECT column_name FROM information_schema.columns WHERE table_name = "
        assert len(again.sql(f"{columns}'trips' OR table_name = 'flights'")) == 2
        assert {finding.dataset_id for finding in again.verify().findings} == {id_}
        assert shard.exists()
        assert Client(make_app(again)).delete("/api/datasets/flights").status_code == 200
        assert [info.name for info in again.catalog.list()] == ["trips"]


def test_a_catalog_whose_snapshots_cannot_be_walked_still_lists_its_datasets(two: Lake) -> None:
    objects = set(two.objects)
    two.tree.set("/snapshots", "no rows at all")

    with Lake(two.folder, tree=two.tree, pool=two.pool) as again:
        assert [info.name for info in again.catalog.list()] == ["flights", "trips"]
        with pytest.raises(Corrupt):
            again.sql(QUERY)
        assert again.sql("SELECT 1").value == 1
        assert {finding.dataset for finding in again.verify().findings} >= {"flights", "trips"}
        assert set(again.objects) == objects


@pytest.mark.slow
def test_a_dataset_whose_rows_are_lost_is_missed(two: Lake) -> None:
    id_ = two.catalog.get("flights").id
    objects = set(two.objects)
    two.tree.update("/", {f"datasets/{id_}": None, f"snapshots/{id_}": None})

    for _ in range(2):
        with Lake(two.folder, tree=two.tree, pool=two.pool) as again:
            for engine in ENGINES:
                with pytest.raises(Corrupt, match="2 datasets, found 1"):
                    again.sql(QUERY, engine=engine)
            with pytest.raises(Corrupt):
                again.catalog.get("flights")
            assert_others_work(again)
            assert "2 datasets" in again.verify().findings[0].problem
            assert set(again.objects) >= objects
            put(again, "other.csv", TRIPS)
            again.delete("other")


def test_a_dataset_whose_name_is_lost_may_be_any_that_is_not_known(two: Lake) -> None:
    id_ = two.catalog.get("flights").id
    two.tree.update("/", {f"datasets/{id_}/name": "fl1ghts", f"snapshots/{id_}": "no rows"})

    with Lake(two.folder, tree=two.tree, pool=two.pool) as again:
        for name in ("flights", "fl1ghts", id_):
            with pytest.raises(Corrupt, match="catalog row"):
                again.sql(f'SELECT * FROM "{name}"')
        assert_others_work(again)
        again.delete(id_)
        with pytest.raises(NotFound):
            again.sql(QUERY)


@pytest.mark.sample(1)
@pytest.mark.parametrize("row", [None, "no row", {"count": 7, "digest": "", "checksum": ""}])
def test_damage_of_the_list_of_datasets_alone_costs_nothing(two: Lake, row: object) -> None:
    two.tree.set("/catalog/datasets", row)

    with Lake(two.folder, tree=two.tree, pool=two.pool) as again:
        assert again.sql(QUERY).rows == ANSWER
        with pytest.raises(NotFound):
            again.sql("SELECT * FROM flight")
        put(again, "other.csv", TRIPS)
        id_ = again.catalog.get("other").id
        assert again.verify().findings == ()

    two.tree.update("/", {f"datasets/{id_}": None, f"snapshots/{id_}": None})
    with (
        Lake(two.folder, tree=two.tree, pool=two.pool) as again,
        pytest.raises(Corrupt, match="3 datasets, found 2"),
    ):
        again.sql("SELECT * FROM other")


def test_a_folder_of_an_earlier_version_is_read(flights: Lake) -> None:
    id_ = flights.catalog.get("flights").id
    flights.tree.delete(f"/datasets/{id_}/checksum")

    with Lake(flights.folder, tree=flights.tree, pool=flights.pool) as again:
        assert again.sql(QUERY).rows == ANSWER
        again.append("flights", _csv(again, "carrier,distance,dep_delay,day\nDL,1,,2013-01-01\n"))
        assert flights.tree.get(f"/datasets/{id_}/checksum")


def test_a_row_without_checksum_must_agree_with_its_manifest(flights: Lake) -> None:
    id_ = flights.catalog.get("flights").id
    flights.tree.update(f"/datasets/{id_}", {"checksum": None, "rows": 5})

    with pytest.raises(Corrupt, match="are not those of its newest snapshot"):
        flights.sql(QUERY)


def _csv(lake: Lake, text: str) -> Path:
    path = lake.folder / "more.csv"
    path.write_text(text)
    return path


# ---- a scrub ------------------------------------------------------------------------------------


def test_a_scrub_of_intact_data_reads_everything(two: Lake) -> None:
    seen: list[int] = []

    report = two.verify(on_progress=lambda report: seen.append(report.bytes_done))

    assert (report.datasets, report.objects, report.findings) == (2, 4, ())
    assert report.done
    assert report.bytes_done == report.bytes_total == two.objects.stored_bytes()
    assert seen == sorted(seen)


def test_a_scrub_names_the_damage_and_the_list_shows_it(two: Lake) -> None:
    flip(shard_of(two), 40)

    report = two.verify()

    (finding,) = report.findings
    assert finding.dataset == "flights"
    assert "chunk 0 of shard 0" in finding.problem
    assert [bool(info.damaged) for info in two.catalog.list()] == [True, False]


def test_a_scrub_that_finds_all_well_again_says_so(flights: Lake) -> None:
    shard = shard_of(flights)
    flip(shard, 40)
    assert flights.verify("flights").findings
    mend(shard)

    assert flights.verify("Flights").findings == ()
    assert flights.catalog.list()[0].damaged is None
    assert flights.sql(QUERY).rows == ANSWER


def mend(shard: Path) -> None:
    """Put the shard that a scrub has moved aside back in its place, with the right bytes."""
    (shard.parent.parent / "quarantine" / shard.name).rename(shard)
    flip(shard, 40)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_query_reads_data_that_a_scrub_found_corrupt(flights: Lake, engine: str) -> None:
    """As when a disk decays: the file's times stay, so an executor that knows it does not look."""
    assert flights.sql(QUERY, engine=engine).rows == ANSWER
    shard = shard_of(flights)
    flip(shard, 40)
    flights.verify()
    mend(shard)  # the bytes are right again, but the scrub's finding is still recorded

    with pytest.raises(Corrupt, match="chunk 0 of shard 0"):
        flights.sql(QUERY, engine=engine)


def test_a_scrub_finds_a_manifest_that_memory_still_holds(two: Lake) -> None:
    assert two.sql(QUERY).rows == ANSWER
    flip(manifest_of(two), 60)

    assert [finding.dataset for finding in two.verify().findings] == ["flights"]


def test_a_scrub_reads_one_dataset_when_one_is_named(two: Lake) -> None:
    flip(shard_of(two), 40)

    assert two.verify("trips").findings == ()
    with pytest.raises(SennitError, match="nosuch"):
        two.verify("nosuch")


# ---- random flips -------------------------------------------------------------------------------


def answers(lake: Lake) -> list[str]:
    """What every way of reading says of each dataset: its rows, or that it is corrupt."""
    results = []
    for query in (QUERY, "SELECT city, km FROM trips ORDER BY city"):
        for engine in ENGINES:
            try:
                results.append(str(lake.sql(query, engine=engine).rows))
            except Corrupt:
                results.append("corrupt")
    return results


def check_flips(lake: Lake, path: Path, flips: int, seed: int) -> int:
    """Flip bits, one at a time; returns how many made a difference."""
    chance, right, found = random.Random(seed), answers(lake), 0
    for _ in range(flips):
        at, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
        flip(path, at, bit)
        with Lake(lake.folder, tree=lake.tree, pool=lake.pool) as again:
            results = answers(again)
        assert all(now in (before, "corrupt") for now, before in zip(results, right, strict=True))
        assert results[2:] == right[2:], "the other dataset"
        found += results != right
        flip(path, at, bit)
    return found


@pytest.mark.slow
def test_any_flip_in_a_shard_is_found(two: Lake) -> None:
    assert check_flips(two, shard_of(two), 3, seed=1) == 3


@pytest.mark.slow
def test_any_flip_in_a_manifest_is_found(two: Lake) -> None:
    assert check_flips(two, manifest_of(two), 3, seed=2) == 3


@pytest.mark.nightly
@pytest.mark.parametrize("find", [shard_of, manifest_of])
def test_forty_flips_of_forty_are_found(two: Lake, find: Callable[[Lake], Path]) -> None:
    assert check_flips(two, find(two), 40, seed=3) == 40


@pytest.fixture
def stored(tmp_path: Path, pool: ExecutorPool) -> Path:
    """The folder of a lake whose catalog is a file, closed."""
    with Lake(tmp_path / "stored", pool=pool) as lake:
        put(lake, "flights.csv", FLIGHTS)
        put(lake, "trips.csv", TRIPS)
    return tmp_path / "stored"


def catalog_flips(folder: Path, pool: ExecutorPool, flips: int, seed: int) -> int:
    """Flip bits of the rows in the catalog's file; returns how many made a difference."""
    chance, found = random.Random(seed), 0
    with Lake(folder, pool=pool) as lake:
        right = answers(lake)
        words = [info.id for info in lake.catalog.list()] + ["flights", "carrier", "Float64"]
    whole = (folder / "elkyn" / "sys" / "data.mdb").read_bytes()
    near = sorted({at for word in words for at in _around(whole, word.encode())})
    copy = folder.with_name("copy")
    for _ in range(flips):
        shutil.copytree(folder, copy)
        flip(copy / "elkyn" / "sys" / "data.mdb", chance.choice(near), chance.randrange(8))
        try:
            with Lake(copy, pool=pool) as lake:
                results = answers(lake)
        except Corrupt:
            results = ["corrupt"] * len(right)
        assert all(now in (before, "corrupt") for now, before in zip(results, right, strict=True))
        found += results != right
        shutil.rmtree(copy)
    return found


def _around(data: bytes, word: bytes) -> Iterator[int]:
    at = data.find(word)
    while at >= 0:
        yield from range(max(at - 40, 0), min(at + 200, len(data)))
        at = data.find(word, at + 1)


@pytest.mark.slow
def test_no_flip_in_the_catalog_changes_an_answer(stored: Path, pool: ExecutorPool) -> None:
    catalog_flips(stored, pool, 4, seed=4)


@pytest.mark.nightly
def test_no_flip_of_forty_in_the_catalog_changes_an_answer(
    stored: Path, pool: ExecutorPool
) -> None:
    assert catalog_flips(stored, pool, 40, seed=5) > 0


def test_repair_is_refused_by_name(flights: Lake) -> None:
    from lake.maintenance.scrub import refuse_repair

    refusal = refuse_repair("flights")
    assert isinstance(refusal, Unsupported)
    assert 'repair dataset "flights"' in str(refusal)
