"""Forks: datasets that begin with the shards of others, and go their own way."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from lake import Lake
from lake.distributed.fork_origins import ForkOrigin
from lake.distributed.forks import fork_dataset
from sennit_core.errors import Conflict, NotFound, Unsupported

TABLE = pa.table({"id": [1, 2, 3], "name": ["a", "b", None]})


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with Lake(tmp_path, memory_bytes="256 MiB") as found:
        found.append("trips", TABLE)
        found.append("trips", TABLE)
        yield found


def objects(lake: Lake, name: str) -> list[str]:
    return [shard.object for shard in lake.catalog.manifest(name).snapshot.shards]


def test_a_fork_has_the_same_objects_and_says_of_what_it_is_one(lake: Lake) -> None:
    info = fork_dataset(lake, "trips", "mine", user="ann")
    assert (info.name, info.owner, info.rows) == ("mine", "ann", 6)
    assert objects(lake, "mine") == objects(lake, "trips")
    manifest = lake.catalog.manifest("mine")
    assert manifest.snapshot.query == "fork of trips version 2"
    assert (manifest.snapshot.version, manifest.snapshot.parent) == (1, None)
    assert manifest.provenance is not None
    [source] = manifest.provenance.inputs
    assert (source.name, source.version) == ("trips", 2)
    assert lake.sql("SELECT sum(id) FROM mine").value == 12
    # Also when its first version is gone; and for no longer than itself.
    lake.append("mine", TABLE)
    lake.retention.expire("mine", keep=1, before=lake.clock.now() + 60)
    forks, trips = lake.storage.forks, lake.catalog.get("trips").id
    assert forks.get(info.id) == ForkOrigin(trips, "trips", 2)
    assert forks.get(trips) is None
    lake.delete("mine")
    assert forks.get(info.id) is None


def test_a_fork_and_its_source_change_apart(lake: Lake) -> None:
    fork_dataset(lake, "trips", "mine")
    lake.sql("DELETE FROM mine WHERE id = 1")
    lake.sql("INSERT INTO trips VALUES (9, 'z')")
    assert lake.sql("SELECT count(*) FROM mine").value == 4
    assert lake.sql("SELECT count(*) FROM trips").value == 7


def test_copies_are_not_dropped_while_a_fork_of_them_is_committed(lake: Lake) -> None:
    """What this node has of its own is looked up while no lease can end."""
    names = objects(lake, "trips")
    held = lake.retention.acquire(names)
    with ThreadPoolExecutor(1) as pool:

        def find_own() -> set[str]:
            ended.append(pool.submit(lake.retention.release, held))
            with pytest.raises(TimeoutError):
                ended[0].result(0.1)
            return set()  # the fork is committed after it was looked up

        ended: list[Future[None]] = []
        assert lake.retention.drop_copies(names, find_own) == set()
        ended[0].result()
    assert lake.retention.drop_copies(names, lambda: names[:1]) == {*names} - {names[0]}
    assert lake.retention.drop_copies(names, lambda: None) == set()


def test_a_fork_outlives_its_source_and_a_restart(tmp_path: Path) -> None:
    with Lake(tmp_path, memory_bytes="256 MiB") as lake:
        lake.append("trips", TABLE)
        fork_dataset(lake, "trips", "mine")
        lake.delete("trips")
    with Lake(tmp_path, memory_bytes="256 MiB") as lake:
        assert lake.sql("SELECT count(*) FROM mine").value == 3
        assert lake.verify().findings == ()


def test_what_cannot_be_forked_says_why(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(Conflict):
        fork_dataset(lake, "trips", "TRIPS")
    with pytest.raises(NotFound):
        fork_dataset(lake, "nothing", "mine")


def test_an_encrypted_dataset_is_copied_instead(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    with Lake(tmp_path / "lake", memory_bytes="256 MiB", key_file=key) as lake:
        lake.append("secret", TABLE, encrypt=True)
        with pytest.raises(Unsupported, match="CREATE TABLE mine AS FROM secret"):
            fork_dataset(lake, "secret", "mine")


def test_a_copy_has_no_rows_of_earlier_versions_and_says_of_what_it_is(lake: Lake) -> None:
    """As docs/network.md says to who shares one to hide them."""
    lake.append("people", pa.table({"name": ["ada", "hidden"]}))
    lake.sql("DELETE FROM people WHERE name = 'hidden'")
    lake.sql("CREATE TABLE copied AS FROM people")
    fork_dataset(lake, "people", "forked")
    gone = lake.catalog.manifest_at("people", version=1).snapshot.shards
    for name in ("copied", "forked"):
        [version] = lake.catalog.snapshots(name)
        info = lake.catalog.get(name)
        manifest, _ = lake.catalog.adopter.manifest_of(info, version.snapshot.id)
        text = lake.objects.place(manifest).read_text()
        assert "hidden" not in text
        assert not any(each.object in text for each in gone)
        assert '"name":"people"' in text
