"""The client against a real node, through restarts."""

import threading
from pathlib import Path
from typing import Any

import pytest

from elytra import Client, Elytra, SendOptions
from elytra.client.upload_progress import TransferProgress
from sennit_core.errors import NotFound, SqlError, UsageError


def test_the_address_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SENNIT_URL", raising=False)
    with pytest.raises(UsageError, match="address is missing"):
        Client()

    monkeypatch.setenv("SENNIT_URL", "http://127.0.0.1:1/")
    with Elytra() as node:
        assert node.client.url == "http://127.0.0.1:1"


def test_the_tree_can_be_read_written_and_watched(node: Any) -> None:
    node.client.set("/a/b", {"c": 1})
    seen = []
    for value in node.client.watch("/a"):
        seen.append(value)
        if len(seen) == 1:
            node.client.set("/a/b/c", 2)
        elif len(seen) == 2:
            node.client.set("/a", None)
        else:
            break

    assert seen == [{"b": {"c": 1}}, {"b": {"c": 2}}, None]
    assert node.client.get("/a") is None


@pytest.mark.slow
def test_datasets_and_questions(node: Any, tmp_path: Path) -> None:
    csv = tmp_path / "cities.csv"
    csv.write_text("city,people\nOslo,700\nBonn,330\n")
    client: Client = node.client
    client.upload(csv).job.wait(30)

    assert [dataset.name for dataset in client.datasets()] == ["cities"]
    assert client.dataset("cities").schema.names == ("city", "people")
    assert len(client.snapshots("cities")) == 1
    assert client.ingest_report("cities")["report"]
    assert client.sql("select sum(people) from cities where people > ?", [400]).value == 700
    with client.iter_sql("select city from cities order by city") as batches:
        assert [c for batch in batches for c in batch.column(0).to_pylist()] == ["Bonn", "Oslo"]
    with pytest.raises(SqlError):
        client.sql("selec 1")

    client.delete("cities")
    assert client.datasets() == []
    with pytest.raises(NotFound):
        client.dataset("cities")


@pytest.mark.slow
def test_an_upload_survives_a_restart_of_the_node(open_node: Any, tmp_path: Path) -> None:
    csv = tmp_path / "numbers.csv"
    csv.write_text("n\n" + "".join(f"{n}\n" for n in range(200_000)))
    begun, sent, outcome = threading.Event(), threading.Event(), dict[str, Any]()

    def on_progress(done: int, total: int) -> None:
        if done >= total // 3 and not begun.is_set():
            begun.set()
            assert sent.wait(30)

    def send(url: str) -> None:
        with Client(url) as client:
            options = SendOptions(part_bytes=64 * 1024, parallel=2)
            uploaded = client.upload(csv, options=options, on_progress=on_progress)
            outcome.update(uploaded.job.wait(30).result or {})

    with open_node(tmp_path / "node") as node:
        port = int(node.url.rsplit(":", 1)[1])
        sender = threading.Thread(target=send, args=[node.url])
        sender.start()
        assert begun.wait(30)
    sent.set()
    with open_node(tmp_path / "node", port):
        sender.join(60)

    assert outcome["rows"] == 200_000


def test_progress_only_grows_and_ends_at_the_total() -> None:
    seen: list[int] = []
    progress = TransferProgress(100, lambda done, _: seen.append(done))
    for part, done in [(0, 30), (0, 0), (1, 20), (0, 30), (0, 50), (1, 50), (1, 50), (1, 60)]:
        progress.set(part, done)

    assert seen == [30, 50, 70, 100]
