"""Uploads over HTTP, into a part store on disk."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from lake import Lake

from .served_lake import Client, make_app

CSV = b"carrier,distance\n" + b"UA,1400\nAA,1089\nB6,1576\n" * 1000


@pytest.fixture
def http(lake: Lake) -> Client:
    return Client(make_app(lake))


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def start(http: Client, name: str = "a.csv", data: bytes = CSV, **more: Any) -> Any:
    answer = http.post("/api/start-upload", json={"name": name, "size": len(data), **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def put(http: Client, upload: Any, index: int, data: bytes, **headers: str) -> httpx.Response:
    path = f"/api/uploads/{upload['uploadId']}/parts/{index}"
    return http.put(path, content=data, headers={"X-Sha256": sha(data), **headers})


def test_completing_with_parts_missing_names_them(http: Client) -> None:
    upload = start(http, partBytes=10_000)
    put(http, upload, 1, CSV[10_000:20_000])

    answer = http.post(f"/api/uploads/{upload['uploadId']}/complete")

    assert answer.status_code == 409
    assert answer.json()["code"] == "upload-incomplete"
    assert answer.json()["details"]["missing"] == [0, 2]


def test_a_wrong_hash_keeps_nothing(http: Client) -> None:
    upload = start(http)

    answer = put(http, upload, 0, CSV, **{"X-Sha256": sha(b"other")})

    assert answer.status_code == 400
    assert "SHA-256" in answer.json()["error"]
    assert http.get(f"/api/uploads/{upload['uploadId']}").json()["have"] == []


def test_other_bytes_for_a_part_that_is_there_conflict(http: Client) -> None:
    upload = start(http)
    put(http, upload, 0, CSV)

    assert put(http, upload, 0, CSV[::-1]).status_code == 409


@pytest.mark.parametrize("data", [CSV[:-1], CSV + b"x"], ids=["short", "long"])
def test_a_part_of_the_wrong_length_is_refused(http: Client, data: bytes) -> None:
    upload = start(http)

    assert put(http, upload, 0, data).status_code in {400, 413}
    assert http.get(f"/api/uploads/{upload['uploadId']}").json()["have"] == []


def test_an_upload_can_be_forgotten(http: Client) -> None:
    path = f"/api/uploads/{start(http)['uploadId']}"

    assert http.delete(path).status_code == 204
    assert http.delete(path).status_code == 204
    assert http.get(path).status_code == 404


def test_a_form_may_bring_a_part(http: Client) -> None:
    upload = start(http)
    fields = {"uploadId": upload["uploadId"], "index": "0", "sha256": sha(CSV)}

    answer = http.post("/api/upload-chunk", data=fields, files={"file": ("blob", CSV)})

    assert answer.json() == {"index": 0, "bytes": len(CSV)}


def test_a_form_whose_file_comes_first_is_refused_with_a_hint(http: Client) -> None:
    answer = http.post("/api/upload-chunk", files={"file": ("blob", CSV)})

    assert answer.status_code == 400
    assert "first" in answer.json()["hint"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["raw", "form", "chunked"])
def test_one_request_is_enough(lake: Lake, http: Client, how: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for piece in (CSV[:5], CSV[5:]):
            yield piece

    path = "/api/upload?name=small.csv"
    if how == "form":
        answer = http.post("/api/upload", files={"file": ("small.csv", CSV)})
    else:
        answer = http.post(path, content=CSV if how == "raw" else chunks())

    assert answer.status_code == 200, answer.text
    dataset = lake.catalog.get("small")
    assert (dataset.id, dataset.rows) == (answer.json()["datasetId"], 3000)
    assert answer.json()["jobId"].startswith("job-of-")


def test_an_image_sent_by_other_clients_is_refused_at_its_first_part(
    http: Client,
) -> None:
    png = b"\x89PNG\r\n\x1a\n" + bytes(9_000)

    whole = http.post("/api/upload", params={"name": "p.csv"}, content=png)
    part = put(http, start(http, data=png), 0, png)

    for answer in (whole, part):
        assert answer.status_code == 400, answer.text
        assert answer.json()["code"] == "bad-input"
        assert "a PNG image" in answer.json()["error"]


def test_a_file_larger_than_the_disk_is_refused_before_any_byte(http: Client) -> None:
    document = {"name": "a.csv", "size": 1 << 44, "partBytes": "256MiB"}

    answer = http.post("/api/start-upload", json=document)

    assert answer.status_code == 507
    assert answer.json()["code"] == "storage-full"


def test_a_changed_file_is_another_upload(http: Client) -> None:
    one = start(http, resumeKey="a")
    same = start(http, resumeKey="a")
    other = start(http, resumeKey="b", name="b.csv")

    assert one["uploadId"] == same["uploadId"]
    assert one["uploadId"] != other["uploadId"]


@pytest.mark.parametrize(
    ("body", "about"),
    [
        (b"{", "JSON"),
        (b"[]", "document"),
        (b"{}", "name"),
        (b'{"name": "a", "size": -1}', "size"),
        (b'{"name": "a", "size": 1, "colour": 1}', "colour"),
        (b'{"name": "a", "size": "1"}', "size"),
        (b'{"name": "a", "size": 1, "mode": "burn"}', "mode"),
    ],
)
def test_a_bad_start_is_refused_with_the_member_that_is_wrong(
    http: Client, body: bytes, about: str
) -> None:
    answer = http.post("/api/start-upload", content=body)

    assert answer.status_code == 400
    assert about in answer.json()["error"]


def test_a_document_is_bounded(http: Client) -> None:
    answer = http.post("/api/start-upload", content=b" " * (1 << 20) + b"{}")

    assert answer.status_code == 413


def test_records_can_be_read_before_the_ingest(http: Client) -> None:
    data = CSV * 4
    upload = start(http, data=data, partBytes=70_000)
    place = f"/api/uploads/{upload['uploadId']}"
    put(http, upload, 1, data[70_000:])
    assert http.get(f"{place}/ranges?bytes=65536").status_code == 409
    put(http, upload, 0, data[:70_000])

    found = http.get(f"{place}/ranges?bytes=65536").json()

    first, cut, last = found["bounds"]
    assert (found["header"], found["whole"], last) == ("carrier,distance\n", True, len(data))
    pieces = [
        http.get(f"{place}/content?start={a}&stop={b}") for a, b in ((first, cut), (cut, last))
    ]
    assert b"".join(each.content for each in pieces) == data[first:]
    assert data[cut - 1 : cut] == b"\n"
    assert 70_000 <= cut < 70_100
    assert http.get(f"{place}/content?start=5&stop=5").status_code == 400
    assert http.get(f"{place}/content?start=0&stop={last + 1}").status_code == 409
    assert http.get(f"{place}/ranges?bytes=1").status_code == 422
