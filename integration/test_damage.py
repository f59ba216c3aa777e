"""A damaged byte costs one dataset: the node starts, says which, and everything else works."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from elkyn import ElkynStore
from emsqrt.expr import count
from nodes import RunningNode, platform, running_node
from sennit_core.errors import Corrupt


def flip(path: Path, at: int) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes((byte ^ 1,)))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a node that has stopped: four datasets, of which three will be damaged."""
    data = tmp_path_factory.mktemp("stopped")
    files = tmp_path_factory.mktemp("files")
    with running_node(data, "--api-only", "--memory", "1GiB") as node, node.session() as session:
        for name in ("whole", "manifest", "row", "shard"):
            path = files / f"{name}.csv"
            path.write_text(f"city,km\n{name},1\nRome,2\n")
            session.put(path)
    return data


@pytest.fixture(scope="module")
def degraded(stopped: Path) -> Iterator[RunningNode]:
    """That node again, with a flipped byte in a manifest, in a catalog row, and in a shard."""
    with ElkynStore(stopped / "elkyn" / "sys", namespace="sys") as tree:
        ids = {row["name"]: row["id"] for row in tree.get("/datasets").values()}
        manifests = {
            name: next(iter(tree.get(f"/snapshots/{id_}").values()))["manifest"]
            for name, id_ in ids.items()
        }
    objects = stopped / "lake" / "objects"
    described = json.loads((objects / manifests["shard"][:2] / manifests["shard"]).read_bytes())
    shard = described["snapshot"]["shards"][0]["object"]
    flip(objects / manifests["manifest"][:2] / manifests["manifest"], 50)
    flip(objects / shard[:2] / shard, 50)
    catalog = stopped / "elkyn" / "sys" / "data.mdb"
    old, new = b"\xa3row\xa5owner", b"\xa3rox\xa5owner"  # MessagePack: the name, the next key
    data = catalog.read_bytes()
    assert data.count(b"\xa3row") >= 1
    catalog.write_bytes(
        data.replace(old, new) if old in data else data.replace(b"\xa3row", b"\xa3rox")
    )
    with running_node(stopped, "--api-only", "--memory", "1GiB") as node:
        yield node


DAMAGED = ("manifest", "row", "shard")


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", DAMAGED)
def test_every_way_to_read_a_damaged_dataset_is_corrupt(degraded: RunningNode, name: str) -> None:
    with degraded.session() as session:
        for engine in ("auto", "duckdb", "emsqrt"):
            with pytest.raises(Corrupt, match=f'dataset "{name}"'):
                session.sql(f'SELECT city, km FROM "{name}"', engine=engine)
        with pytest.raises(Corrupt, match=f'dataset "{name}"'):
            session.pipeline(name).group_by("city").agg(n=count()).distribute()
    answer = httpx.get(f"{degraded.url}/files/{name}/head/0.parquet", headers=degraded.headers)
    assert (answer.status_code, answer.json()["code"]) == (500, "corrupt")


def test_the_others_work(degraded: RunningNode) -> None:
    with degraded.session() as session:
        assert session.sql("SELECT sum(km) FROM whole").value == 3
        assert len(session.pipeline("whole").group_by("city").agg(n=count()).distribute()) == 2
        assert session.sql("SELECT 1").value == 1


@pytest.mark.nightly
def test_verify_names_the_damage_and_fails(degraded: RunningNode) -> None:
    done = platform("verify", "--json", data=degraded.data, check=False)
    whole = platform("verify", "whole", data=degraded.data)
    listed = platform("datasets", data=degraded.data)

    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert {finding["dataset"] for finding in report["findings"]} == set(DAMAGED)
    assert "no damage" in whole.stdout
    lines = listed.stderr.splitlines()
    assert [line.split('"')[1] for line in lines if line.startswith("damaged: ")] == list(DAMAGED)
    with degraded.session() as session:
        assert {info.name for info in session.datasets() if info.damaged} == set(DAMAGED)


def test_repair_is_refused_by_name(degraded: RunningNode) -> None:
    done = platform("verify", "shard", "--repair", data=degraded.data, check=False)

    assert done.returncode == 2
    assert 'cannot repair dataset "shard"' in done.stderr


@pytest.mark.nightly
def test_a_damaged_dataset_is_deleted_and_its_name_is_free(
    degraded: RunningNode, tmp_path: Path
) -> None:
    again = tmp_path / "row.csv"
    again.write_text("city,km\nOslo,5\n")
    refused = platform("put", str(again), data=degraded.data, check=False)
    platform("datasets", "row", "--delete", data=degraded.data)
    platform("put", str(again), data=degraded.data)

    assert "exists" in refused.stderr
    with degraded.session() as session:
        assert session.sql("SELECT sum(km) FROM row").value == 5
