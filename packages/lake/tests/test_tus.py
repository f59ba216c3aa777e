"""The protocol tus 1.0 over the part store: creation, appending, checksums, concatenation, expiry."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.ingest.source import PartsFile
from lake.routes import breakable_body
from lake.routes.breakable_body import BreakableBody, UploadLocked, UploadWriters
from lake.uploads import ordered_writer, parts
from lake.uploads.ordered_writer import OrderedWriter
from lake.uploads.parts import PartStore
from lake.uploads.tus_headers import Checksum, ChecksumMismatch, parse_metadata
from lake.uploads.tus_upload import TusUpload
from lake.uploads.upload import UploadInfo
from sennit_core.errors import Busy, Conflict, TooLarge, UsageError
from sennit_core.testing import ManualClock

from .served_lake import Client, make_app

CSV = b"carrier,distance\n" + b"UA,1400\nAA,1089\nB6,1576\n" * 40
BYTES = "application/offset+octet-stream"


class TusClient(Client):
    """Sends requests of tus."""

    def tus(
        self, method: str, path: str, content: bytes = b"", version: str = "1.0.0", **headers: Any
    ) -> httpx.Response:
        sent = {"Tus-Resumable": version} if version else {}
        sent |= {name.replace("_", "-"): str(value) for name, value in headers.items()}
        return self.request(method, path, content=content, headers=sent)

    def create(self, size: int = len(CSV), name: str = "a.csv", **headers: Any) -> str:
        answer = self.tus(
            "POST", "/tus/", Upload_Length=size, Upload_Metadata=metadata(filename=name), **headers
        )
        assert answer.status_code == 201, answer.text
        return str(answer.headers["Location"])

    def append(self, place: str, offset: int, data: bytes, **headers: Any) -> httpx.Response:
        headers = dict[str, Any](Content_Type=BYTES, Upload_Offset=offset) | headers
        return self.tus("PATCH", place, data, **headers)


def metadata(**members: str) -> str:
    return ",".join(
        f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in members.items()
    )


def checksum(data: bytes, algorithm: str = "sha1") -> str:
    digest = hashlib.new(algorithm, data).digest()
    return f"{algorithm} {base64.b64encode(digest).decode()}"


@pytest.fixture
def http(lake: Lake) -> TusClient:
    return TusClient(make_app(lake))


def test_a_file_in_several_requests_becomes_a_dataset(http: TusClient, lake: Lake) -> None:
    place = http.create()

    first = http.append(place, 0, CSV[:100])
    head = http.tus("HEAD", place)
    last = http.append(place, 100, CSV[100:])

    assert (first.status_code, first.headers["Upload-Offset"]) == (204, "100")
    assert head.headers["Upload-Offset"] == "100"
    assert head.headers["Upload-Length"] == str(len(CSV))
    assert head.headers["Upload-Metadata"] == metadata(filename="a.csv")
    assert head.headers["Cache-Control"] == "no-store"
    assert head.headers["Tus-Resumable"] == "1.0.0"
    assert lake.catalog.get("a").id == last.headers["Sennit-Dataset"]
    assert lake.catalog.get("a").rows == 120


def test_a_client_that_missed_the_last_response_learns_that_the_file_is_there(
    http: TusClient, lake: Lake
) -> None:
    place = http.create()
    last = http.append(place, 0, CSV)

    head = http.tus("HEAD", place)

    assert lake.parts.list() == []
    assert head.headers["Upload-Offset"] == head.headers["Upload-Length"] == str(len(CSV))
    assert head.headers["Sennit-Job"] == last.headers["Sennit-Job"]


def test_an_upload_may_come_with_its_creation(http: TusClient, lake: Lake) -> None:
    answer = http.tus(
        "POST", "/tus/", CSV, Upload_Length=len(CSV), Content_Type=BYTES,
        Upload_Metadata=metadata(filename="a.csv"),
    )  # fmt: skip

    assert answer.status_code == 201
    assert answer.headers["Upload-Offset"] == str(len(CSV))
    assert answer.headers["Location"].startswith("/tus/")
    assert lake.catalog.get("a").rows == 120


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_bytes_with_another_checksum_are_dropped(http: TusClient, algorithm: str) -> None:
    place = http.create()

    wrong = http.append(place, 0, CSV[:100], Upload_Checksum=checksum(CSV[:99], algorithm))
    offset = http.tus("HEAD", place).headers["Upload-Offset"]
    right = http.append(place, 0, CSV[:100], Upload_Checksum=checksum(CSV[:100], algorithm))

    assert (wrong.status_code, offset) == (460, "0")
    assert (right.status_code, right.headers["Upload-Offset"]) == (204, "100")


def test_concatenated_uploads_are_one_file_without_copies(http: TusClient, lake: Lake) -> None:
    places = [http.create(each, Upload_Concat="partial") for each in (300, len(CSV) - 300)]
    http.append(places[1], 0, CSV[300:])
    early = http.tus("POST", "/tus/", Upload_Concat=f"final;{places[0]} {places[1]}")
    http.append(places[0], 0, CSV[:300])

    final = http.tus(
        "POST", "/tus/", Upload_Concat=f"final;http://node{places[0]} {places[1]}",
        Upload_Metadata=metadata(filename="b.csv"),
    )  # fmt: skip

    assert early.status_code == 409
    assert final.status_code == 201, final.text
    head = http.tus("HEAD", final.headers["Location"])
    assert head.headers["Upload-Concat"] == f"final;{places[0]} {places[1]}"
    assert http.tus("HEAD", places[0]).headers["Upload-Concat"] == "partial"
    assert lake.catalog.get("b").rows == 120
    assert http.append(final.headers["Location"], len(CSV), b"x").status_code == 403


def test_a_partial_upload_is_no_dataset(http: TusClient, lake: Lake) -> None:
    place = http.create(len(CSV), Upload_Concat="partial")
    http.append(place, 0, CSV)

    answer = http.post(f"/api/uploads/{place.removeprefix('/tus/')}/complete")

    assert answer.status_code == 409
    assert lake.catalog.list() == []


FORBIDDEN: tuple[tuple[int, dict[str, Any]], ...] = (
    (412, {"version": ""}),
    (412, {"version": "0.2.2"}),
    (415, {"Content_Type": "text/csv"}),
    (400, {"Upload_Offset": "x"}),
    (400, {"Upload_Offset": "-1"}),
    (409, {"Upload_Offset": "7"}),
    (413, {"data": CSV + b"x"}),
    (400, {"Upload_Checksum": "md5 AAAA"}),
    (400, {"Upload_Checksum": "sha1 AAAA"}),
)


def test_what_the_protocol_forbids_keeps_nothing(http: TusClient) -> None:
    for status, change in FORBIDDEN:
        place, sent = http.create(), dict(change)
        answer = http.append(place, 0, sent.pop("data", CSV), **sent)

        assert answer.status_code == status, f"{change}: {answer.text}"
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        assert status != 412 or answer.headers["Tus-Version"] == "1.0.0"
        assert http.tus("HEAD", place).headers["Upload-Offset"] == "0"


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"Upload_Length": "5"}, "has no name"),
    ({"Upload_Metadata": metadata(filename="a.csv")}, "Upload-Length is missing"),
    ({"Upload_Length": "5", "Upload_Metadata": "filename a.csv"}, "not Base64"),
    ({"Upload_Length": "5", "Upload_Metadata": "x " + "A" * 9000}, "8,192 are allowed"),
    ({"Upload_Defer_Length": "1"}, "length of an upload is needed"),
    ({"Upload_Concat": "final;"}, "Upload-Concat"),
    ({"Upload_Length": "5", "Upload_Metadata": metadata(filename="a", options="[1]")}, "JSON"),
    ({"Upload_Length": "5", "Upload_Metadata": metadata(filename="a", mode="x")}, "mode"),
)


def test_a_creation_that_is_wrong_says_what(http: TusClient, lake: Lake) -> None:
    for headers, found in WRONG:
        answer = http.tus("POST", "/tus/", **headers)

        assert answer.status_code == 400
        assert found in answer.json()["error"]
    assert lake.parts.list() == []


def test_a_dataset_that_exists_is_refused_before_the_first_byte(http: TusClient) -> None:
    http.append(http.create(), 0, CSV)

    answer = http.tus("POST", "/tus/", Upload_Length=9, Upload_Metadata=metadata(filename="a.csv"))

    assert answer.status_code == 409


def test_metadata_have_the_mode_and_options_of_the_ingest(http: TusClient, lake: Lake) -> None:
    http.append(http.create(), 0, CSV)
    more = metadata(filename="x.txt", mode="append", options='{"name": "a"}')
    place = http.tus("POST", "/tus/", Upload_Length=len(CSV), Upload_Metadata=more)

    http.append(place.headers["Location"], 0, CSV)

    assert lake.catalog.get("a").rows == 240


def test_a_terminated_upload_is_gone_and_an_unknown_one_never_was(
    http: TusClient, lake: Lake
) -> None:
    place = http.create()
    http.append(place, 0, CSV[:10])

    assert http.tus("DELETE", place).status_code == 204
    assert list(lake.parts.root.iterdir()) == []
    for method in ("HEAD", "DELETE", "PATCH"):
        answer = http.tus(method, place, b"x", Content_Type=BYTES, Upload_Offset=0)
        unknown = http.tus(method, "/tus/x", b"x", Content_Type=BYTES, Upload_Offset=0)
        assert (answer.status_code, unknown.status_code) == (410, 404)


def test_uploads_of_other_protocols_are_not_there(http: TusClient, lake: Lake) -> None:
    upload = lake.parts.start("a.csv", 10)

    assert http.tus("HEAD", f"/tus/{upload.id}").status_code == 410
    assert http.tus("DELETE", f"/tus/{upload.id}").status_code == 410
    assert lake.parts.get(upload.id) == upload


def test_a_method_may_be_a_header(http: TusClient) -> None:
    place = http.create()

    answer = http.tus(
        "POST", place, CSV[:5], Content_Type=BYTES, Upload_Offset=0, X_HTTP_Method_Override="PATCH"
    )

    assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, "5")
    assert http.tus("POST", place).status_code == 400


def test_options_tell_what_the_server_can_do(http: TusClient) -> None:
    answer = http.tus("OPTIONS", "/tus/", version="")

    assert answer.status_code == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert set(answer.headers["Tus-Checksum-Algorithm"].split(",")) == {"sha1", "sha256"}


def test_unfinished_uploads_expire_after_their_last_bytes(tmp_path: Path) -> None:
    clock = ManualClock()
    store = PartStore(tmp_path, expire_seconds=100, clock=clock)
    upload = started(store, 10)
    clock.advance(60)
    append(store, upload, b"12345")
    clock.advance(60)

    assert store.sweep() == []
    assert store.expires_at(upload.id) == clock.now() + 40
    clock.advance(41)
    assert store.sweep() == [upload.id]


def test_a_full_lake_and_too_many_uploads_refuse_a_creation(
    tmp_path: Path, pool: ExecutorPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "UPLOADS_MAX", 1)
    with ElkynStore(mode="memory") as tree:
        with Lake(tmp_path / "full", tree=tree, pool=pool, quota_objects=0) as lake:
            client = TusClient(make_app(lake))
            more: dict[str, Any] = {
                "Upload_Length": 9,
                "Upload_Metadata": metadata(filename="a.csv"),
            }
            assert client.tus("POST", "/tus/", **more).status_code == 507
        with Lake(tmp_path / "busy", tree=tree, pool=pool) as lake:
            started(lake.parts, 9)
            with pytest.raises(Busy, match="unfinished uploads"):
                started(lake.parts, 9)


def test_encrypted_partial_uploads_make_an_encrypted_dataset(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    with (
        ElkynStore(mode="memory") as tree,
        Lake(tmp_path, tree=tree, pool=pool, encrypt=True, passphrase="correct horse") as lake,
    ):
        client = TusClient(make_app(lake))
        places = [client.create(each, Upload_Concat="partial") for each in (300, len(CSV) - 300)]
        for place, data in zip(places, (CSV[:300], CSV[300:]), strict=True):
            assert client.append(place, 0, data).status_code == 204
        stored = b"".join(each.read_bytes() for each in lake.parts.root.rglob("*.part"))
        assert b"1400" not in stored

        final = client.tus(
            "POST", "/tus/", Upload_Concat=f"final;{places[0]} {places[1]}",
            Upload_Metadata=metadata(filename="b.csv"),
        )  # fmt: skip

        assert final.status_code == 201, final.text
        assert lake.catalog.get("b").encrypted
        assert lake.sql("SELECT count(*), sum(distance) FROM b").rows == [(120, 162600)]


def test_a_request_that_does_not_end_keeps_its_upload_locked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(breakable_body, "WAIT_SECONDS", 0.01)
    seen: list[str] = []

    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b""

    async def run() -> None:
        writers, first = UploadWriters(), BreakableBody(nothing())
        release = asyncio.Event()

        async def write() -> None:
            async with writers.exclusive("u", first):
                async for _ in first.pieces():
                    raise AssertionError("nothing was sent")
                seen.append("interrupted")
                await release.wait()  # as on a disk that stalls

        writing = asyncio.create_task(write())
        await asyncio.sleep(0)
        with pytest.raises(UploadLocked):
            async with writers.exclusive("u", BreakableBody(nothing())):
                raise AssertionError("two writers")
        release.set()
        await writing
        async with writers.exclusive("u", BreakableBody(nothing())):
            seen.append("free again")

    asyncio.run(run())
    assert seen == ["interrupted", "free again"]


def started(store: PartStore, size: int) -> UploadInfo:
    return store.start("a.csv", size, tus=TusUpload())


def append(
    store: PartStore, upload: UploadInfo, data: bytes, check: Checksum | None = None,
    *, is_whole: bool = True, piece_bytes: int = 7,
) -> None:  # fmt: skip
    with OrderedWriter(store, upload, check, is_whole=lambda: is_whole) as writer:
        for at in range(0, len(data), piece_bytes):
            writer.write(data[at : at + piece_bytes])
        writer.commit()


def check_requests(folder: Path, seed: int) -> None:
    """Send a file in random requests, of which some break off, to a store that restarts now and then."""
    draw = random.Random(seed)
    part_bytes = draw.randint(1, 40)
    store = PartStore(folder, part_bytes=part_bytes)
    data = draw.randbytes(draw.randint(1, 150))
    upload = started(store, len(data))
    while (offset := store.position(upload.id)[1]) < len(data):
        piece = data[offset : offset + draw.randint(0, 90)]
        check = draw.choice([None, Checksum("sha256", hashlib.sha256(piece).digest())])
        is_whole = draw.random() < 0.7
        append(store, upload, piece, check, is_whole=is_whole, piece_bytes=draw.randint(1, 50))
        kept = b"" if check and not is_whole else piece
        assert store.position(upload.id)[1] == offset + len(kept)
        if draw.random() < 0.2:  # as after a restart
            store = PartStore(folder, part_bytes=part_bytes)

    sealed = store.seal(upload.id)

    with PartsFile(sealed.paths) as file:
        assert file.read() == data
    assert list(folder.rglob("*.incoming")) == []


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_requests_of_any_size_that_break_anywhere_make_the_file(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    check_requests(tmp_path_factory.mktemp("uploads"), seed)


@pytest.mark.nightly
def test_many_files_in_requests_that_break_anywhere(tmp_path: Path) -> None:
    for seed in range(200):
        check_requests(tmp_path / str(seed), seed)


def test_an_upload_that_is_not_whole_is_not_sealed(tmp_path: Path) -> None:
    store = PartStore(tmp_path)
    upload = started(store, 10)
    append(store, upload, b"12345")

    with pytest.raises(Conflict, match="5 of 10 bytes"):
        store.seal(upload.id)


def test_a_writer_refuses_more_than_the_upload_and_the_limit_of_checksums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PartStore(tmp_path)
    upload = started(store, 100)
    monkeypatch.setattr(ordered_writer, "CHECKED_BYTES_MAX", 50)

    with pytest.raises(TooLarge, match="several requests"):
        append(store, upload, bytes(51), Checksum("sha1", b""))
    with pytest.raises(TooLarge):
        append(store, upload, bytes(101), piece_bytes=101)
    with pytest.raises(ChecksumMismatch):
        append(store, upload, bytes(50), Checksum("sha1", b""))
    assert store.position(upload.id) == (0, 0)


@given(st.text(max_size=60))
def test_any_metadata_are_read_or_refused(text: str) -> None:
    try:
        found = parse_metadata(text)
    except UsageError:
        return
    assert len(found) <= text.count(",") + 1
