"""The verbs for datasets and statements, against a node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from opened_node import OpenNode, OpenNodes

from sennit.cli import run


@pytest.fixture(scope="module")
def node(opened: OpenNodes) -> OpenNode:
    return opened({"storage.compact_hours": 0, "storage.sweep_hours": 0})


@pytest.fixture(autouse=True)
def verbs(node: OpenNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENNIT_URL", node.url)
    monkeypatch.setenv("SENNIT_TOKEN", node.client.headers["authorization"].split()[1])


def test_a_file_is_put_with_a_layout(
    node: OpenNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rides.csv"
    file.write_text("country,km\nno,3\nit,5\nno,9\n")
    layout = ["--partition-by", "country", "--sort-by", "km DESC"]
    assert run(["put", str(file), "--wait", *layout]) == 0
    capsys.readouterr()
    assert run(["datasets", "rides", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["shards"] == 2


def test_views_are_listed_with_their_queries(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sql", "CREATE VIEW far AS SELECT 42 AS km"]) == 0
    capsys.readouterr()
    assert run(["datasets", "--views"]) == 0
    printed = capsys.readouterr().out
    assert "far" in printed
    assert "42" in printed
    assert run(["datasets", "--views", "--json"]) == 0
    assert [view["name"] for view in json.loads(capsys.readouterr().out)] == ["far"]


def test_a_statement_has_a_priority(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sql", "SELECT 1 AS a", "--priority", "batch", "--csv"]) == 0
    assert capsys.readouterr().out.split() == ["a", "1"]
    assert run(["sql", "SELECT 1", "--priority", "urgent"]) == 2
    assert "batch" in capsys.readouterr().err


def test_a_file_is_merged_by_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "stock.csv"
    file.write_text("item,price\nnut,5\nbolt,7\n")
    assert run(["sql", "CREATE TABLE stock (item VARCHAR, price DECIMAL(8,2))"]) == 0
    assert run(["put", str(file), "--mode", "append", "--wait"]) == 0
    file.write_text("item,price\nbolt,8.5\ncog,1\n")
    for flag in ("--wait", "--copy"):  # from where it is, and uploaded
        assert run(["put", str(file), "--mode", "upsert", "--key", "item", flag]) == 0
    capsys.readouterr()
    assert run(["sql", "FROM stock", "--csv"]) == 0
    assert capsys.readouterr().out.split() == ["item,price", "nut,5.00", "bolt,8.50", "cog,1.00"]
    assert run(["put", str(file), "--mode", "upsert"]) == 2
    assert run(["put", str(file), "--mode", "upsert", "--key", "itme"]) == 2
    assert "item" in capsys.readouterr().err
    new = ["put", str(file), "--name", "new", "--mode", "upsert", "--key"]
    for flag in ("--wait", "--copy"):  # created, then merged
        assert run([*new, "item", flag]) == 0
    capsys.readouterr()
    assert run(["sql", "SELECT count(*) FROM new", "--csv"]) == 0
    assert capsys.readouterr().out.split()[-1] == "2"


def test_a_job_reads_a_version_or_a_view(capsys: pytest.CaptureFixture[str]) -> None:
    for sql in (
        "CREATE TABLE runs AS SELECT 1 AS n",
        "INSERT INTO runs VALUES (2)",
        "CREATE VIEW tens AS SELECT n * 10 AS n FROM runs",
    ):
        assert run(["sql", sql]) == 0
    found = []
    for source in (
        ["runs"],
        ["runs", "--version", "1"],
        ["runs", "--timestamp", "2999-01-01"],
        ["tens"],
    ):
        capsys.readouterr()
        assert run(["run", *source, "--where", "n > 0", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["rows"])
    assert found == [[[1], [2]], [[1]], [[1], [2]], [[10], [20]]]
    assert run(["run", "runs", "--version", "nosuch"]) == 4
