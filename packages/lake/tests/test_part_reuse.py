"""Parts that an upload takes from the same user's other uploads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from lake import Lake
from lake.access.quotas import UserQuota
from lake.errors import UploadIncomplete
from lake.statements.limits import Requester
from lake.uploads import part_reuse
from lake.uploads.part_reuse import OFFERS_MAX, reuse_parts
from lake.uploads.parts import PartStore
from lake.uploads.upload import UploadInfo
from sennit_core.errors import Conflict, NotFound, StorageFull, UsageError
from sennit_core.testing import ManualClock

from .served_lake import Client, make_app
from .test_crash import die
from .test_parts import content, send, sha

PART = 256
DATA = b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(100))


def cut(data: bytes) -> list[bytes]:
    return [data[start : start + PART] for start in range(0, len(data), PART)]


def offers(data: bytes) -> dict[int, str]:
    return {index: sha(part) for index, part in enumerate(cut(data))}


def start(store: PartStore, data: bytes, owner: str | None = "ada", **more: Any) -> UploadInfo:
    return store.start("a.csv", len(data), part_bytes=PART, owner=owner, **more)


def started(store: PartStore, data: bytes, owner: str | None = "ada", **more: Any) -> UploadInfo:
    upload = start(store, data, owner, **more)
    for index, part in enumerate(cut(data)):
        send(store, upload, index, part)
    return upload


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["always", "interval"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock
) -> Iterator[PartStore]:
    store = PartStore(tmp_path / "uploads", sync=request.param, clock=clock)
    yield store
    store.close()


def test_a_file_that_another_upload_has_is_not_sent(store: PartStore, tmp_path: Path) -> None:
    first = started(store, DATA)
    again = start(store, DATA, mode="replace")

    assert list(store.reusable("ada", besides=again.id)) == [first.id]
    assert reuse_parts(store, again.id, "ada", offers(DATA)) == list(offers(DATA))

    store.abort(first.id)
    assert content(store.seal(again.id)) == DATA, "the bytes stay while one upload has them"
    assert store.position(again.id)[1] == len(DATA)


def test_the_parts_that_differ_are_left_to_send(store: PartStore) -> None:
    started(store, DATA)
    longer = DATA + b"100,10000\n" * 40
    upload = start(store, longer)

    reused = reuse_parts(store, upload.id, "ada", offers(longer))

    # The last part of the first file is shorter than the part of the longer file at its position.
    assert list(reused) == list(range(len(DATA) // PART))
    for index in set(offers(longer)) - set(reused):
        send(store, upload, index, cut(longer)[index])
    assert content(store.seal(upload.id)) == longer


def test_parts_of_other_users_and_of_none_are_the_same_to_a_user(store: PartStore) -> None:
    started(store, DATA, "eve")
    started(store, DATA, None)  # of a version that did not store who sent it
    mine = start(store, DATA, "ada")
    theirs = start(store, DATA, "eve")

    assert not store.reusable("ada")
    assert list(reuse_parts(store, mine.id, "ada", offers(DATA))) == []
    assert list(reuse_parts(store, mine.id, "ada", {0: "0" * 64})) == []
    # The user who offers counts, not the one who began the upload.
    assert list(reuse_parts(store, theirs.id, "ada", offers(DATA))) == []


def test_parts_of_another_length_or_kind_are_not_taken(store: PartStore) -> None:
    image = b"\x89PNG\r\n\x1a\n" + bytes(PART - 8)
    source = started(store, cut(DATA)[0] + image + cut(DATA)[1][:-7])
    assert source.parts == 3
    upload = start(store, bytes(3 * PART))
    hashes = [sha for sha, _ in store.part_files(source.id)]

    assert list(reuse_parts(store, upload.id, "ada", {1: hashes[2]})) == [], "it is shorter"
    assert list(reuse_parts(store, upload.id, "ada", {0: hashes[1]})) == [], "a file that begins so"
    assert list(reuse_parts(store, upload.id, "ada", {1: hashes[1]})) == [1]
    unknown = store.start("b.csv", None, part_bytes=PART, owner="ada")
    assert list(reuse_parts(store, unknown.id, "ada", {0: hashes[0]})) == [], "of unknown size"


def test_hostile_offers_are_refused(store: PartStore) -> None:
    started(store, DATA)
    upload = start(store, DATA)

    with pytest.raises(UsageError, match="not a SHA-256"):
        reuse_parts(store, upload.id, "ada", {0: "../../etc/passwd"})
    with pytest.raises(UsageError, match="outside"):
        reuse_parts(store, upload.id, "ada", {99: sha(b"")})
    with pytest.raises(UsageError, match="at once"):
        reuse_parts(store, upload.id, "ada", dict.fromkeys(range(OFFERS_MAX + 1), sha(b"")))
    with pytest.raises(NotFound):
        reuse_parts(store, "../uploads", "ada", offers(DATA))
    send(store, upload, 0, b"x" * PART)
    assert 0 not in reuse_parts(store, upload.id, "ada", offers(DATA)), "it has another part there"
    assert store.get(upload.id).have == tuple(offers(DATA))
    store.seal(upload.id)
    with pytest.raises(Conflict, match="accepts no more"):
        reuse_parts(store, upload.id, "ada", offers(DATA))


def test_a_request_reads_a_limited_number_of_names(
    store: PartStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_reuse, "FILES_MAX", 2)
    started(store, DATA)
    upload = start(store, DATA)

    assert list(reuse_parts(store, upload.id, "ada", offers(DATA))) == [0, 1]


def test_clean_up_between_the_offer_and_the_end(store: PartStore, clock: ManualClock) -> None:
    first = started(store, DATA)
    clock.advance(store.expire_seconds - 10)
    upload = start(store, DATA)
    reuse_parts(store, upload.id, "ada", {0: offers(DATA)[0]})

    clock.advance(20)
    assert store.sweep() == [first.id]

    assert list(reuse_parts(store, upload.id, "ada", offers(DATA))) == [0], "the rest is gone"
    with pytest.raises(UploadIncomplete):
        store.seal(upload.id)
    for index in range(1, len(offers(DATA))):
        send(store, upload, index, cut(DATA)[index])
    assert content(store.seal(upload.id)) == DATA


def test_a_part_that_vanishes_while_it_is_taken_is_left_to_send(store: PartStore) -> None:
    first = started(store, DATA)
    upload = start(store, DATA)
    chosen = dict(enumerate(store.part_files(first.id)))
    chosen[1][1].unlink()

    assert list(store.link_parts(upload.id, chosen)) == [i for i in offers(DATA) if i != 1]


def test_a_damaged_part_is_found_in_each_upload_that_has_it(
    store: PartStore, clock: ManualClock
) -> None:
    first = started(store, DATA)
    upload = start(store, DATA)
    reuse_parts(store, upload.id, "ada", offers(DATA))
    _, path = store.part_files(first.id)[2]
    path.write_bytes(bytes(PART))
    os.utime(path, (clock.now() - 10_000,) * 2)

    with pytest.raises(UploadIncomplete) as error:
        store.seal(upload.id)

    assert error.value.missing == [2]


def test_it_is_known_after_a_restart_who_sent_a_part(store: PartStore) -> None:
    first = started(store, DATA)

    again = PartStore(store.root)

    assert again.get(first.id).owner == "ada"
    assert "owner" not in again.get(first.id).to_json()
    upload = start(again, DATA)
    assert list(reuse_parts(again, upload.id, "ada", offers(DATA))) == list(offers(DATA))
    assert list(again.reusable("eve")) == []


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_parts_of_any_uploads_make_the_file(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = PartStore(tmp_path_factory.mktemp("uploads"))
    blocks = [b"a,b\n" * 64, b"1,2\n" * 64, b"3,4\n" * 64]
    for _ in range(data.draw(st.integers(0, 2))):
        some = data.draw(st.lists(st.sampled_from(blocks), min_size=1, max_size=4))
        started(store, b"".join(some), data.draw(st.sampled_from(["ada", "eve"])))
    own = {each for upload in store.reusable("ada") for each, _ in store.part_files(upload)}
    file = b"".join(data.draw(st.lists(st.sampled_from(blocks), min_size=1, max_size=6)))
    upload = start(store, file)

    reused = reuse_parts(store, upload.id, "ada", offers(file))

    assert set(reused) == {index for index, sha256 in offers(file).items() if sha256 in own}
    for index in set(offers(file)) - set(reused):
        send(store, upload, index, cut(file)[index])
    assert content(store.seal(upload.id)) == file


CHILD = """
import sys
from lake.uploads.part_reuse import reuse_parts
from lake.uploads.parts import PartStore
folder, _, upload = sys.argv[1:]
store = PartStore(folder)
source, = store.reusable("ada", besides=upload)
offered = {index: sha256 for index, (sha256, _) in enumerate(store.part_files(source))}
reuse_parts(store, upload, "ada", offered)
"""


@pytest.mark.crash
def test_a_node_killed_while_it_takes_parts_loses_none(tmp_path: Path) -> None:
    store = PartStore(tmp_path / "uploads")
    started(store, DATA)
    upload = start(store, DATA)

    die(store.root, "reuse-linked", "reuse", upload.id, CHILD)

    again = PartStore(store.root)
    assert again.get(upload.id).have == (0,)
    assert again.position(upload.id) == (1, PART)
    assert list(reuse_parts(again, upload.id, "ada", offers(DATA))) == list(offers(DATA))
    assert content(again.seal(upload.id)) == DATA


class SignedIn:
    """Sets the user of requests."""

    def __init__(self, app: Any) -> None:
        self.app, self.user = app, Requester("ada", role="writer")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        HTTPConnection(scope).state.principal = self.user
        await self.app(scope, receive, send)


def test_the_route_and_what_a_start_says(lake: Lake) -> None:
    app = SignedIn(make_app(lake))
    http = Client(app)  # type: ignore[arg-type]  # any ASGI application
    document = {"name": "a.csv", "size": len(DATA), "partBytes": PART}
    parts = {str(index): sha256 for index, sha256 in offers(DATA).items()}

    def begin() -> Any:
        return http.post("/api/start-upload", json=document).json()

    def offer(upload: Any, **more: str) -> Any:
        path = f"/api/uploads/{upload['uploadId']}/reuse"
        return http.post(path, json={"parts": parts | more}).json()

    first = begin()
    assert first["reusable"] is False
    for index, part in enumerate(cut(DATA)):
        http.put(f"/api/uploads/{first['uploadId']}/parts/{index}", content=part)
    second = begin()
    assert second["reusable"] is True
    assert offer(second) == {"reused": list(offers(DATA))}

    app.user = replace(app.user, name="eve")
    other = begin()
    assert other["reusable"] is False
    assert offer(other) == {"reused": []}
    for wrong in ("-1", "x", "1" * 7, "\u0661"):
        assert offer(other, **{wrong: "0" * 64})["code"] == "usage", wrong


def test_taken_parts_count_in_a_quota_as_sent_ones(lake: Lake) -> None:
    first = started(lake.parts, DATA)
    twice = start(lake.parts, DATA, options={"name": "twice"})
    thrice = start(lake.parts, DATA, options={"name": "thrice"})
    for upload in (twice, thrice):
        reuse_parts(lake.parts, upload.id, "ada", offers(DATA))
    lake.ingest(first.id, owner="ada")
    stored = lake.quotas.stored_by("ada")
    lake.quotas.set(UserQuota("ada", disk_bytes=stored * 5 // 2))

    lake.ingest(twice.id, owner="ada")

    assert lake.quotas.stored_by("ada") == 2 * stored
    with pytest.raises(StorageFull, match="needs"):
        lake.ingest(thrice.id, owner="ada")
