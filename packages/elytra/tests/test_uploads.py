"""Bytes in, over real sockets into a real part store, until they are a dataset."""

import hashlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from elytra import Elytra
from elytra.client.upload_progress import Transfer, with_rate
from elytra.client.upload_sender import SendOptions
from sennit_core.errors import Conflict, NotFound, SennitError, UsageError
from sennit_core.ids import new_id
from sennit_core.testing import ManualClock

CSV = b"carrier,distance\n" + b"UA,1400\nAA,1089\nB6,1576\n" * 1000


@pytest.fixture
def http(node: Any) -> Any:
    with httpx.Client(base_url=node.url) as client:
        yield client


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "flights.csv"
    path.write_bytes(CSV)
    return path


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def start(http: httpx.Client, name: str = "a.csv", data: bytes = CSV, **more: Any) -> Any:
    answer = http.post("/api/start-upload", json={"name": name, "size": len(data), **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def put(http: httpx.Client, upload: Any, index: int, data: bytes, **headers: str) -> httpx.Response:
    path = f"/api/uploads/{upload['uploadId']}/parts/{index}"
    return http.put(path, content=data, headers={"X-Sha256": sha(data), **headers})


def test_the_rate_and_the_time_left_are_those_of_the_last_seconds() -> None:
    clock, seen = ManualClock(), list[Transfer]()
    on_progress = with_rate(seen.append, clock)

    on_progress(500, 1000)  # an earlier attempt has sent these
    clock.advance(2)
    on_progress(600, 1000)
    clock.advance(20)
    on_progress(610, 1000)

    assert (seen[0].bytes_per_second, seen[0].seconds_left) == (0.0, None)
    assert (seen[1].bytes_per_second, seen[1].seconds_left) == (50.0, 8.0)
    assert seen[2].bytes_per_second == 0.5, "not the mean of all seconds"


def test_parallel_connections_are_an_argument_of_their_own(node: Any, csv: Path) -> None:
    seen: list[Transfer] = []

    upload = node.client.upload(csv, name="rates", parallel=2, on_progress=with_rate(seen.append))

    assert upload.job.wait().state == "done"
    assert seen[-1].done_bytes == seen[-1].total_bytes == len(CSV)
    with pytest.raises(UsageError, match="parallel"):
        node.client.upload(csv, name="none", parallel=0)


@pytest.mark.slow
def test_a_file_becomes_a_dataset(node: Any, csv: Path) -> None:
    seen: list[tuple[int, int]] = []
    uploaded = node.client.upload(
        csv,
        options=SendOptions(part_bytes=4096),
        on_progress=lambda done, total: seen.append((done, total)),
    )
    info = uploaded.job.wait(30)

    dataset = node.lake.catalog.get("flights")
    assert (dataset.id, dataset.rows) == (uploaded.dataset_id, 3000)
    assert info.result is not None
    ingest = info.result["ingest"]
    assert {**info.result, "ingest": None} == {
        "file": "flights.csv", "dataset": dataset.id, "name": "flights", "rows": 3000,
        "ingest": None,
    }  # fmt: skip
    assert (ingest["name"], ingest["source"]["delimiter"]) == ("flights.csv", ",")
    assert seen == sorted(seen)
    assert seen[-1] == (len(CSV), len(CSV))
    assert node.lake.parts.list() == []


@pytest.mark.slow
def test_parts_may_come_in_any_order_and_again(node: Any, http: httpx.Client) -> None:
    upload = start(http, partBytes=10_000)
    for index in (2, 0, 1, 0):
        part = CSV[index * 10_000 : (index + 1) * 10_000]
        assert put(http, upload, index, part).status_code == 200

    state = http.get(f"/api/uploads/{upload['uploadId']}").json()
    assert state["have"] == [0, 1, 2]
    done = http.post(f"/api/uploads/{upload['uploadId']}/complete").json()
    again = http.post(f"/api/uploads/{upload['uploadId']}/complete").json()
    assert done == again
    assert node.client.job(done["jobId"]).wait(30).result["rows"] == 3000


@pytest.mark.slow
def test_a_name_in_use_is_refused_before_any_byte(node: Any, csv: Path) -> None:
    node.client.upload(csv).job.wait(30)

    with pytest.raises(Conflict, match="flights"):
        node.client.upload(csv)


@pytest.mark.slow
def test_a_file_that_cannot_be_read_fails_its_job_with_the_reason(
    node: Any, tmp_path: Path
) -> None:
    blank = tmp_path / "blank.csv"
    blank.write_bytes(b"\n\n")

    uploaded = node.client.upload(blank)

    with pytest.raises(SennitError) as caught:
        uploaded.job.wait(30)
    assert caught.value.code == "bad-input"
    assert uploaded.job.state == "failed"


def test_a_file_without_a_table_is_refused_before_it_is_sent(node: Any, tmp_path: Path) -> None:
    photo, empty, folder, pipe = (tmp_path / name for name in ("p.csv", "e.csv", "d.csv", "f.csv"))
    photo.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    empty.touch()
    folder.mkdir()
    os.mkfifo(pipe)

    for path, reason in (
        (photo, "a PNG image"),
        (empty, "the file is empty"),
        (folder, "is a directory"),
        (pipe, "is not a regular file"),
    ):
        with pytest.raises(UsageError, match=reason):
            node.client.upload(path)
    assert node.lake.parts.list() == []


class Cable:
    """A proxy between a client and its node that counts the parts and can be cut."""

    def __init__(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parts: list[int] = []
        self.breaks_at: int | None = None
        self._put = client._transport.put
        monkeypatch.setattr(client._transport, "put", self.put)

    def put(self, path: str, *args: Any, **options: Any) -> Any:
        if len(self.parts) == self.breaks_at:
            raise ConnectionAbortedError("the cable was pulled")
        self.parts.append(int(path.rsplit("/", 1)[1]))
        return self._put(path, *args, **options)


@pytest.mark.slow
def test_an_interrupted_upload_resumes_where_it_stopped(
    node: Any, csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cable = Cable(node.client, monkeypatch)
    options = SendOptions(part_bytes=4096, parallel=1)
    cable.breaks_at = 3
    with pytest.raises(ConnectionAbortedError):
        node.client.upload(csv, options=options)

    cable.breaks_at = None
    seen: list[int] = []
    uploaded = node.client.upload(
        csv, options=options, on_progress=lambda done, _: seen.append(done)
    )

    assert cable.parts == list(range(6))
    assert seen[:3] == [4096, 8192, 12288]
    assert uploaded.job.wait(30).result["rows"] == 3000


def test_a_file_is_not_sent_again_after_an_ingest_that_failed(
    shared_node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, csv = shared_node.client, tmp_path / "sent_once.csv"
    csv.write_bytes(CSV)
    options = SendOptions(part_bytes=4096, ingest={"columns": {"carrier": "Int64"}})
    cable = Cable(client, monkeypatch)
    with pytest.raises(SennitError, match="carrier"):
        client.upload(csv, options=options).job.wait(30)
    sent = len(cable.parts)
    seen: list[int] = []
    csv.write_bytes(CSV + b"DL,760\n")  # and another time of change: it is another file

    corrected = client.upload(
        csv, options=SendOptions(part_bytes=4096), on_progress=lambda done, _: seen.append(done)
    )

    assert sent == 6
    assert cable.parts[sent:] == [5], "only the part that has changed"
    assert seen == sorted(seen)
    assert seen[-1] == len(CSV) + 7
    assert corrected.job.wait(30).result["rows"] == 3001


@pytest.mark.slow
@pytest.mark.parametrize("route", ["part", "whole"])
def test_a_client_that_goes_away_leaves_nothing(node: Any, http: httpx.Client, route: str) -> None:
    path = "/api/upload?name=gone.csv"
    if route == "part":
        path = f"/api/uploads/{start(http)['uploadId']}/parts/0"
    verb = "PUT" if route == "part" else "POST"
    host, port = node.url.removeprefix("http://").split(":")

    def something_is_left() -> bool:
        if route == "whole":
            return bool(node.lake.parts.list())
        return any(file.name != "upload.json" for file in (node.folder / "uploads").glob("*/*"))

    with socket.create_connection((host, int(port))) as line:
        head = f"{verb} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(CSV)}\r\n\r\n"
        line.sendall(head.encode() + CSV[:-1])
        eventually(something_is_left)
    eventually(lambda: not something_is_left())


def eventually(look: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


@pytest.mark.slow
def test_an_upload_is_a_source_of_pipelines(node: Any, http: httpx.Client, csv: Path) -> None:
    upload = start(http)
    put(http, upload, 0, CSV)
    by_id = Elytra(node.client).remote(upload["uploadId"])
    by_object = Elytra(node.client).remote(node.client.upload(csv, name="b.csv"))

    assert by_id.count().collect().value == 3000
    assert by_object.count().collect().value == 3000
    with pytest.raises(NotFound):
        Elytra(node.client).remote(new_id()).count().collect()
