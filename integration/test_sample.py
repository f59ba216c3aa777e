"""`platform sample`: the two datasets, what they are shared with, and what it leaves alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from nodes import RunningNode, platform
from sennit.sample_data import EXAMPLE, SAMPLES, write_sample


def test_the_files_are_the_same_each_time_and_whole(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    for name in SAMPLES:
        path = write_sample(name, tmp_path)
        assert path.read_bytes() == write_sample(name, tmp_path / "again").read_bytes()
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        assert len({len(row) for row in rows}) == 1
        ids = [row[0] for row in rows[1:]]
        assert ids == [str(number) for number in range(1, len(rows))]


def test_both_are_loaded_once_and_the_example_runs(node: RunningNode) -> None:
    assert json.loads(platform("sample", "--json", data=node.data).stdout) == {
        "loaded": ["employees", "products"],
        "shared": [],
    }
    printed = platform("sample", data=node.data).stdout
    assert printed.count("is there already") == 2
    assert EXAMPLE in printed
    answer = json.loads(platform("sql", EXAMPLE, "--json", data=node.data).stdout)
    assert len(answer["rows"]) == 5
    with node.session() as session:
        for name in SAMPLES:
            session.delete(name)


def test_a_dataset_that_only_has_the_name_is_not_shared(own_node: RunningNode) -> None:
    node = own_node
    (node.data / "employees.csv").write_text("secret\n1\n")
    platform("put", str(node.data / "employees.csv"), data=node.data)
    with node.session() as session:
        session.network.invite()
    found = json.loads(platform("sample", "--share", "all", "--json", data=node.data).stdout)
    assert found == {"loaded": ["products"], "shared": ["products"]}
    with node.session() as session:
        assert not session.network.sharing("employees")["shared"]
        assert session.network.sharing("products")["nodes"] is None
