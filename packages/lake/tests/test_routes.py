"""The lake over HTTP."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lake import Lake
from sennit_core.errors import Cancelled

from .served_lake import Client, make_app, make_bare_app

ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture
def client(flights: Lake) -> Client:
    return Client(make_app(flights))


def test_datasets_are_listed_shown_and_deleted(client: Client) -> None:
    listed = client.get("/api/datasets").json()
    shown = client.get("/api/datasets/flights").json()

    assert [row["name"] for row in listed] == ["flights"]
    assert shown["rows"] == 4
    assert shown["ingest"]["source"]["encoding"] == "utf-8"
    assert (
        client.request("DELETE", f"/api/datasets/{shown['id']}").json()["deleted"]["name"]
        == "flights"
    )
    assert client.get("/api/datasets").json() == []
    assert client.get("/api/datasets/flights").status_code == 404


def test_a_snapshot_lists_its_shards(client: Client) -> None:
    (listed,) = client.get("/api/datasets/flights/snapshots").json()
    head = client.get("/api/datasets/flights/snapshots/head").json()
    by_id = client.get(f"/api/datasets/flights/snapshots/{listed['id']}?offset=1").json()

    assert (listed["rows"], listed["shardCount"], listed["shards"]) == (4, 1, [])
    assert listed["createdAt"] > 0
    assert [shard["rows"] for shard in head["shards"]] == [4]
    assert by_id == head | {"shards": []}
    assert client.get("/api/datasets/flights/snapshots/nosuch").status_code == 404
    assert client.get("/api/datasets/flights/snapshots?before=1").json() == []
    assert client.get("/api/datasets/flights/snapshots?limit=0").status_code == 422


def test_a_shard_is_a_plain_parquet_file(client: Client) -> None:
    whole = client.get("/files/flights/head/0.parquet")

    assert pq.read_table(io.BytesIO(whole.content)).num_rows == 4
    assert whole.headers["accept-ranges"] == "bytes"
    assert client.get("/files/flights/head/9.parquet").status_code == 404
    assert client.get("/files/flights/nosuch/0.parquet").status_code == 404


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [("bytes=0-3", 0, 4), ("bytes=-4", -4, None), ("bytes=10-", 10, None)],
)
def test_ranges_of_a_shard_are_served(
    client: Client, header: str, start: int, stop: int | None
) -> None:
    whole = client.get("/files/flights/head/0").content

    part = client.get("/files/flights/head/0", headers={"Range": header})

    assert part.status_code == 206
    assert part.content == whole[start:stop]
    first = start % len(whole)
    assert (
        part.headers["content-range"]
        == f"bytes {first}-{first + len(part.content) - 1}/{len(whole)}"
    )


def test_a_range_outside_the_shard_is_refused_and_odd_ones_are_ignored(client: Client) -> None:
    whole = client.get("/files/flights/head/0").content

    assert client.get("/files/flights/head/0", headers={"Range": "bytes=99999-"}).status_code == 416
    for header in ("bytes=0-1,3-4", "rows=1-2", "bytes=-"):
        assert client.get("/files/flights/head/0", headers={"Range": header}).content == whole


def test_the_etag_is_the_object_and_saves_the_transfer(client: Client, flights: Lake) -> None:
    (name,) = (shard.object for shard in flights.resolve("flights")[0].shards)
    head = client.request("HEAD", f"/files/flights/head/{name}.parquet")

    assert head.headers["etag"] == f'"{name}"'
    assert head.content == b""
    again = client.get("/files/flights/head/0", headers={"If-None-Match": head.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv; charset=utf-8"),
        (ARROW, ARROW),
        (f"text/csv;q=0.1, {ARROW}", ARROW),
        ("text/html, */*;q=0.5", "application/json"),
    ],
)
def test_the_response_has_the_requested_type(client: Client, accept: str, media: str) -> None:
    answer = client.post("/api/query", json={"sql": "SELECT 1 AS one"}, headers={"Accept": accept})

    assert answer.headers["content-type"] == media
    assert answer.headers["vary"] == "Accept"


def test_an_accept_that_names_no_format_is_refused(client: Client) -> None:
    answer = client.post("/api/query", json={"sql": "SELECT 1"}, headers={"Accept": "image/png"})

    assert answer.status_code == 400
    assert ARROW in answer.json()["hint"]


def test_arrow_answers_are_streams_of_the_whole(client: Client) -> None:
    answer = client.post(
        "/api/query",
        json={"sql": "SELECT * FROM range(300000)", "params": []},
        headers={"Accept": ARROW},
    )

    with pa.ipc.open_stream(answer.content) as reader:
        assert reader.read_all().num_rows == 300_000


def test_parameters_and_limits_are_accepted(client: Client) -> None:
    body = {"sql": "SELECT ? AS x FROM range(9)", "params": [7], "maxRows": 2}

    assert client.post("/api/query", json=body).json() == {
        "columns": [{"name": "x", "type": "Int32"}],
        "rows": [[7], [7]],
        "truncated": True,
    }


def test_errors_of_a_query_are_reported_before_the_response_begins(client: Client) -> None:
    unknown = client.post("/api/query", json={"sql": "FROM fligts"})
    reading = client.post("/api/query", json={"sql": "FROM '/etc/passwd'"})
    syntax = client.post("/api/query", json={"sql": "SELCT 1"})

    assert (unknown.status_code, unknown.json()["hint"]) == (404, 'did you mean "flights"?')
    assert reading.status_code == 403
    assert syntax.json()["details"]["column"] == 1
    assert client.post("/api/query", json={"sq": "x"}).status_code == 422


def test_a_client_that_goes_away_ends_its_query(flights: Lake) -> None:
    app = make_bare_app(flights)
    body = b'{"sql": "SELECT count(*) FROM range(10000000000) a, range(1000) b"}'
    sent: list[Any] = []
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": body, "more_body": False},
        {"type": "http.disconnect"},
    ]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/query",
        "raw_path": b"/api/query",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(Cancelled):
        asyncio.run(app(scope, receive, send))
    assert flights.sql("SELECT 1").value == 1


def test_an_unknown_engine_is_refused(client: Client) -> None:
    answer = client.post("/api/query", json={"sql": "SELECT 1", "engine": "warp"})

    assert answer.json()["code"] == "unsupported"


def damage_shard(lake: Lake) -> str:
    """Flip a bit in the only shard; returns its object id."""
    _, (path,) = lake.resolve("flights")
    path.chmod(0o644)
    with path.open("r+b") as file:
        byte = file.read(1)[0]
        file.seek(0)
        file.write(bytes((byte ^ 1,)))
    return path.name


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=8-20"}])
def test_a_damaged_shard_is_an_error_and_no_body_that_ends_early(
    client: Client, flights: Lake, headers: dict[str, str]
) -> None:
    assert client.get("/files/flights/head/0.parquet", headers=headers).status_code < 300
    name = damage_shard(flights)

    for shard in ("0.parquet", name):
        answer = client.get(f"/files/flights/head/{shard}", headers=headers)
        assert answer.json()["code"] == "corrupt"
        assert f'"flights": chunk 0 of shard 0 (object {name})' in answer.json()["error"]


def test_a_damaged_manifest_is_an_error_of_its_routes_alone(client: Client, flights: Lake) -> None:
    flights.append("trips", pa.table({"km": [1]}))
    (row,) = flights.tree.get(f"/snapshots/{flights.catalog.get('flights').id}").values()
    flights.objects.place(row["manifest"]).unlink()
    flights.catalog.reload()

    for path in ("/api/datasets/flights", "/api/datasets/flights/snapshots"):
        assert client.get(path).json()["code"] == "corrupt"
    assert client.get("/files/flights/head/0.parquet").json()["code"] == "corrupt"
    assert client.get("/api/datasets/trips/snapshots").status_code == 200
    listed = client.get("/api/datasets").json()
    assert ["manifest" in each.get("damaged", "") for each in listed] == [True, False]


@pytest.mark.slow
def test_verify_reports_damage_line_by_line(client: Client, flights: Lake) -> None:
    whole = client.post("/api/verify", json={})
    name = damage_shard(flights)
    damaged = client.post("/api/verify", json={"dataset": "Flights"})

    assert whole.headers["content-type"] == "application/x-ndjson"
    last = whole.text.splitlines()[-1]
    assert '"done":true' in last
    assert '"findings":[]' in last
    last = damaged.text.splitlines()[-1]
    assert '"done":true' in last
    assert name in last


def test_verify_refuses_unknown_datasets_and_repairs(client: Client) -> None:
    assert client.post("/api/verify", json={"dataset": "nosuch"}).json()["code"] == "not-found"
    refused = client.post("/api/verify", json={"dataset": "flights", "repair": True}).json()
    assert (refused["code"], "flights" in refused["error"]) == ("unsupported", True)


def test_columns_get_another_order(client: Client) -> None:
    names = [
        field["name"] for field in client.get("/api/datasets/flights").json()["schema"]["fields"]
    ]
    route = "/api/datasets/flights/reorder-columns"
    answer = client.post(route, json={"columns": names[::-1]})
    refused = client.post(route, json={"columns": names[:1]})

    assert [field["name"] for field in answer.json()["schema"]["fields"]] == names[::-1]
    assert refused.status_code == 400
    client.post(route, json={"columns": names})


def test_versions_over_http(client: Client) -> None:
    route = "/api/datasets/flights"
    assert client.request("PUT", f"{route}/tags/first", json={"version": 1}).json().keys() == {
        "first"
    }
    assert client.get(f"{route}/tags").json().keys() == {"first"}
    head = client.get(f"{route}/snapshots/head").json()["version"]
    changes = client.get(f"{route}/changes?since={head}&until=first")
    assert changes.json()["rows"] == []
    assert changes.json()["columns"][0]["name"] == "change"
    assert client.get(f"{route}/changes?since=nosuch").status_code == 404
    assert client.get(f"{route}/changes").status_code == 422
    assert client.post(f"{route}/expire", json={"keep": 1}).json()["versions"] == list(
        range(2, head)
    )
    assert client.post(f"{route}/expire", json={"keep": 0}).status_code == 422
    assert client.request("DELETE", f"{route}/tags/first").json() == {}
    assert client.request("DELETE", f"{route}/tags/first").status_code == 404
    assert client.post(f"{route}/compact").json()["shards"] == 1
