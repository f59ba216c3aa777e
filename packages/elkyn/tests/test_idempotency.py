"""Writes sent again under their Idempotency-Key: applied once, through restarts and failovers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from elkyn_server import Served

from elkyn import ElkynStore
from elkyn.auth.authorizer import UNRESTRICTED, Authorizer
from elkyn.auth.principal import Principal
from elkyn.server.handle import handle
from elkyn.server.request import Request, Response
from elkyn.storage import receipts
from elkyn.storage.receipts import Receipt
from elkyn.storage.transactions import WriteTransaction

_KILLED_AFTER_A_COMMIT = """
import os, signal, sys
from pathlib import Path
from elkyn import _failpoints
from elkyn.cli.program import main

def stop(point):
    if point == "committed" and Path(sys.argv[3], "armed").exists():
        os.kill(os.getpid(), signal.SIGKILL)

_failpoints.hook = stop
sys.exit(main())
"""


class Doomed(Served):
    """A server that is killed between a commit and its answer, once there is a file `armed`."""

    program = ("-c", _KILLED_AFTER_A_COMMIT)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ElkynStore]:
    with ElkynStore(tmp_path / "store") as store:
        yield store


def ask(
    store: ElkynStore,
    method: str,
    path: str,
    body: Any,
    key: str = "k",
    authorizer: Authorizer = UNRESTRICTED,
) -> Response:
    sent = {"idempotency-key": key}
    return handle(
        Request(method, path, headers=sent, body=json.dumps(body).encode()), store, authorizer
    )


@pytest.mark.sample(1)
@pytest.mark.crash
@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("POST", "a message"),
        ("PUT", {"n": {".sv": {"increment": 1}}, "t": {".sv": "timestamp"}}),
        ("PATCH", {"n": {".sv": {"increment": 1}}}),
        ("DELETE", None),
    ],
)
def test_a_write_whose_response_was_lost_to_a_kill_is_not_applied_twice(
    tmp_path: Path, method: str, body: Any
) -> None:
    data = tmp_path / "data"
    served = Doomed(data)
    served.client.put("/at.json", json={"before": 1, "n": 4})
    (data / "armed").touch()
    send = {"method": method, "url": "/at.json", "json": body}
    with pytest.raises(httpx.TransportError):
        served.client.request(**send, headers={"Idempotency-Key": "one"})
    served.process.wait(20)
    served.kill()
    (data / "armed").unlink()

    served.start()
    before = served.client.get("/at.json").json()
    again = served.client.request(**send, headers={"Idempotency-Key": "one"})
    assert again.status_code == 200
    assert served.client.get("/at.json").json() == before
    if method == "POST":
        assert before[again.json()["name"]] == body
        assert list(before.values()).count(body) == 1
    if method == "PUT":
        assert again.json() == before
        assert before["n"] == 5
    if method == "PATCH":
        assert before["n"] == 5
    other = served.client.request(**send, headers={"Idempotency-Key": "two"})
    assert int(other.headers["x-elkyn-position"]) > int(again.headers["x-elkyn-position"])
    served.stop()


def test_the_answer_is_that_of_the_first_time_also_after_a_restart(tmp_path: Path) -> None:
    body = {"n": {".sv": {"increment": 1}}, "t": {".sv": "timestamp"}}
    with ElkynStore(tmp_path / "store") as store:
        first = ask(store, "PUT", "/a.json", body)
        pushed = ask(store, "POST", "/log.json", "x", "p")
        store.set("/a", "something else")
        store.admin.compact()
    with ElkynStore(tmp_path / "store") as store:
        again = ask(store, "PUT", "/a.json", body)
        assert (again.status, again.body) == (200, first.body)
        assert ask(store, "POST", "/log.json", "x", "p").body == pushed.body
        assert store.get("/a") == "something else"
        assert len(store.get("/log")) == 1


def test_a_key_counts_for_its_place_method_and_caller_alone(store: ElkynStore) -> None:
    for number, (method, path, uid) in enumerate(
        [("POST", "/a.json", "x"), ("POST", "/b.json", "x"), ("POST", "/a.json", "y")]
    ):
        store.set_rules({"rules": {".read": True, ".write": True}})
        authorizer = Authorizer(Principal(uid=uid), store)
        assert ask(store, method, path, number, authorizer=authorizer).status == 200
    assert ask(store, "PUT", "/a.json", {"k": 1}).status == 200
    assert sorted(store.get("/b").values()) == [1]
    refused = ask(store, "PUT", "/a.json", {"k": 2})
    assert (refused.status, b"another body" in refused.body) == (400, True)


def test_a_refused_write_leaves_no_receipt(store: ElkynStore) -> None:
    store.set_rules({"rules": {"a": {".write": "newData.val() === 1"}}})
    authorizer = Authorizer(Principal(uid="x"), store)
    assert ask(store, "PUT", "/a.json", 2, authorizer=authorizer).status == 401
    assert ask(store, "PUT", "/a.json", 1, authorizer=authorizer).status == 200
    assert count(store) == 1


def count(store: ElkynStore) -> int:
    with store.admin.snapshot() as view:
        return view.tree.receipts.count()


def keep(store: ElkynStore, number: int, time_ms: int) -> None:
    def body(view: WriteTransaction) -> None:
        row = Receipt(time_ms, b"f", 1, ("a",), [(("a",), 1)])
        view.tree.receipts.put(number.to_bytes(16, "big"), row)

    store.admin.prepare(body)


def test_old_receipts_go_and_so_do_the_oldest_of_many(
    store: ElkynStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        keep(store, number, 1000)
    expired = 1000 + receipts.SECONDS_MAX * 1000 + 1
    keep(store, 10, expired)
    keep(store, 11, expired)
    assert count(store) == 2
    monkeypatch.setattr(receipts, "ROWS_MAX", 5)
    for number in range(12, 40):
        keep(store, number, expired + number)
    assert count(store) <= 6
    with store.admin.snapshot() as view:
        known = view.tree.receipts
        assert known.get((39).to_bytes(16, "big"), expired) is not None
        assert known.get((10).to_bytes(16, "big"), expired) is None
        assert known.get((39).to_bytes(16, "big"), expired * 3) is None
    assert store.admin.verify() == []


def test_writes_without_a_key_keep_nothing(store: ElkynStore) -> None:
    assert handle(Request("PUT", "/a.json", body=b"1"), store).status == 200
    assert count(store) == 0
