"""Namespaces of a server: the answers to clients of a missing one, and how one is created."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from elkyn_server import Served, running, until
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.protocol import State
from websockets.sync.client import ClientConnection, connect

from elkyn import ElkynStore, open_namespaces
from elkyn.cli import main
from elkyn.replication.link import announce_term
from elkyn.server.app import ElkynApp, elkyn_app

NAME = "my-app-default-rtdb"
MISSING = f'there is no namespace "{NAME}"; create it with: elkyn namespace add {NAME}'
PAGE = "/.settings/namespaces.json"
REQUESTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("q", {"p": "/a", "h": ""}),
    ("q", {"p": "/a", "q": {"l": 1, "vf": "l"}, "t": 1, "h": ""}),
    ("g", {"p": "/a", "q": {}}),
    ("p", {"p": "/a", "d": 1}),
    ("m", {"p": "/a", "d": {"b": 1}}),
    ("o", {"p": "/a", "d": None}),
    ("om", {"p": "/a", "d": {"b": None}}),
    ("oc", {"p": "/a", "d": None}),
)

Start = Callable[..., Served]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that creates no namespace by itself."""
    with running(tmp_path_factory.mktemp("served") / "data") as started:
        yield started


@pytest.fixture
def fresh() -> str:
    """A namespace that no other test has created."""
    return f"app-{uuid4().hex}"


def close_code(wire: Any) -> int | None:
    """Return the code that the server closes a connection with."""
    with suppress(ConnectionClosedError):  # an iteration ends without it for 1000 and 1001 alone
        for _message in wire.socket:
            pass
    code: int | None = wire.socket.close_code
    return code


@pytest.mark.slow
def test_every_request_for_a_missing_namespace_is_answered_with_the_reason(served: Served) -> None:
    with served.wire(NAME) as wire:
        assert wire.hello["t"] == "h"
        for action, body in REQUESTS:
            assert wire.ask(action, **body) == {"s": "unknown_namespace", "d": MISSING}, action
        assert wire.drain() == [("sd", {"msg": MISSING})]


def test_a_client_of_a_missing_namespace_is_not_driven_to_connect_again(served: Served) -> None:
    with served.wire(NAME) as wire:
        for action in ("auth", "unauth", "appcheck", "s", "n"):
            assert wire.ask(action, cred="none", p="/a")["s"] == "ok", action
        wire.socket.send("0")
        wire.socket.send('{"t":"c","d":{"t":"p","d":{}}}')
        assert wire.read() == {"t": "c", "d": {"t": "o", "d": None}}
        assert wire.answer(wire.send("p", p="/a", d="x" * 100_000))["s"] == "unknown_namespace"


def test_a_namespace_created_meanwhile_is_used_by_the_next_request(
    served: Served, fresh: str
) -> None:
    with served.wire(fresh) as wire:
        assert wire.ask("g", p="/a", q={})["s"] == "unknown_namespace"
        assert served.client.post(PAGE, json={"name": fresh}).status_code == 201
        wire.send("g", p="/a", q={})
        assert close_code(wire) == 1013  # SDKs connect again, and repeat the request
    with served.wire(fresh) as wire:
        assert wire.ask("auth", cred=served.token)["s"] == "ok"
        assert wire.ask("g", p="/a", q={}) == {"s": "ok", "d": None}


@pytest.mark.slow
def test_a_name_that_no_namespace_can_have_is_refused_by_an_emulator_too(emulator: Any) -> None:
    with emulator.wire("my.app") as wire:
        answer = wire.ask("g", p="/a", q={})
    assert answer["s"] == "failure"
    assert answer["d"].startswith("'my.app' is not a valid namespace name: use up to 63 letters")


def test_a_malformed_message_ends_a_refused_connection(served: Served) -> None:
    with served.wire(NAME) as wire:
        wire.socket.send("{")
        assert close_code(wire) == 1007


def test_a_large_write_is_refused_at_its_first_frame(served: Served) -> None:
    head = '{"t":"d","d":{"r":7,"a":"p","b":{"p":"/a","d":"'
    with served.wire(NAME) as wire:
        for frame in ("3", head + "x" * 16_000):
            wire.socket.send(frame)
        assert wire.answer(7)["s"] == "unknown_namespace"
        for frame in ("x" * 16_000, '"}}}'):
            wire.socket.send(frame)
        assert wire.ask("g", p="/a", q={})["s"] == "unknown_namespace"


@pytest.mark.slow
def test_a_server_with_refused_connections_stops(start_server: Start) -> None:
    served = start_server()
    with served.wire(NAME) as wire:
        assert wire.ask("g", p="/a", q={})["s"] == "unknown_namespace"
        code, logged = served.stop()
        assert (code, logged) == (0, "")
        assert close_code(wire) in (1001, 1012)


def test_refused_connections_count_against_the_limit_of_sockets(served: Served) -> None:
    def sockets() -> bool:
        page = served.client.get("/metrics").text
        return any("ws" in line and line.endswith(" 1") for line in page.splitlines())

    assert not sockets()
    with served.wire(NAME):
        assert sockets()
    until(lambda: not sockets())


def test_rest_says_how_a_namespace_is_created(served: Served) -> None:
    for method in ("GET", "PUT"):
        answer = served.client.request(method, f"/a.json?ns={NAME}", content="1")
        assert (answer.status_code, answer.json()) == (404, {"error": MISSING})
    answer = served.client.get("/a.json?ns=no.name")
    assert answer.status_code == 404
    assert "this is not a valid namespace name: use up to 63 letters" in answer.json()["error"]


@pytest.mark.slow
def test_a_namespace_created_over_rest_lasts_and_is_listed(start_server: Start) -> None:
    served = start_server()
    answers = [served.client.post(PAGE, json={"name": NAME}) for _twice in range(2)]
    assert [(a.status_code, a.json()) for a in answers] == [
        (201, {"name": NAME, "created": True}),
        (200, {"name": NAME, "created": False}),
    ]
    assert served.client.put(f"/a.json?ns={NAME}", json=1).status_code == 200
    served.stop()
    again = start_server()
    assert again.client.get(PAGE).json() == {"default": "default", "namespaces": ["default", NAME]}
    assert again.client.get(f"/a.json?ns={NAME}").json() == 1


def test_namespaces_are_for_admins_alone(served: Served) -> None:
    for headers in ({}, {"Authorization": "Bearer unknown"}):
        for method in ("GET", "POST"):
            answer = httpx.request(
                method, f"{served.url}{PAGE}", headers=headers, json={"name": NAME}
            )
            assert answer.status_code == 401, (method, headers)
    assert NAME not in served.client.get(PAGE).json()["namespaces"]


@pytest.mark.parametrize(
    ("method", "body", "status", "text"),
    [
        (
            "POST",
            '{"name": "a.b"}',
            400,
            "'a.b' is not a valid namespace name: use up to 63 letters",
        ),
        ("POST", '{"name": ""}', 400, "'' is not a valid namespace name"),
        ("POST", '{"name": "../x"}', 400, "'../x' is not a valid namespace name"),
        ("POST", '{"name": 1}', 400, '{"name": "NAME"}'),
        ("POST", "{", 400, '{"name": "NAME"}'),
        ("POST", "", 400, '{"name": "NAME"}'),
        ("PUT", '{"name": "a"}', 405, "Method 'PUT' is not allowed."),
        ("DELETE", "", 405, "Method 'DELETE' is not allowed."),
    ],
)
def test_a_wrong_request_for_a_namespace_is_refused(
    emulator: Any, method: str, body: str, status: int, text: str
) -> None:
    answer = emulator.client.request(method, PAGE, content=body)
    assert answer.status_code == status
    assert text in answer.json()["error"]


def test_the_namespace_of_the_request_itself_may_be_missing(served: Served, fresh: str) -> None:
    assert served.client.get(f"{PAGE}?ns={fresh}").status_code == 200
    assert served.client.post(f"{PAGE}?ns={fresh}", json={"name": fresh}).status_code == 201


@pytest.mark.slow
def test_serve_creates_the_configured_namespaces(start_server: Start) -> None:
    served = start_server("--namespace", NAME, "--namespace", "second")
    assert served.client.get(PAGE).json() == {"default": NAME, "namespaces": [NAME, "second"]}
    served.client.put("/a.json", json=1)
    assert served.client.get(f"/a.json?ns={NAME}").json() == 1


def test_the_verb_creates_and_lists_in_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(tmp_path / "data")]
    assert [main(["namespace", "add", NAME, *data]) for _twice in range(2)] == [0, 0]
    assert main(["namespace", "list", *data]) == 0
    created, known, listed = capsys.readouterr().out.splitlines()
    assert (created, known) == (f"namespace {NAME} created", f"namespace {NAME} exists already")
    assert listed == NAME
    with open_namespaces(tmp_path / "data", create=False) as stores:
        assert stores[NAME].get("/") is None
    assert main(["namespace", "add", "a.b", *data]) == 2
    assert "use up to 63 letters" in capsys.readouterr().err


def test_the_verb_contacts_the_server_of_the_folder_or_the_url(
    served: Served, fresh: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["namespace", "add", fresh, "--data", str(served.data)]) == 0
    url = ["--url", served.url, "--token", served.token]
    assert main(["namespace", "add", f"{fresh}-2", *url]) == 0
    assert main(["namespace", "list", *url]) == 0
    assert {fresh, f"{fresh}-2"} <= set(capsys.readouterr().out.splitlines())
    assert main(["namespace", "add", "third", "--url", served.url]) == 1
    assert "Permission denied" in capsys.readouterr().err
    assert main(["namespace", "add", "a.b", *url]) == 2


@pytest.mark.nightly
def test_a_follower_has_its_leader_create_a_namespace(start_server: Start, tmp_path: Path) -> None:
    leader = start_server(data=tmp_path / "leader")
    token_file = tmp_path / "token"
    token_file.write_text(leader.token)
    follower = start_server(
        "--follow", leader.url, "--follow-token-file", str(token_file), data=tmp_path / "follower"
    )
    until(lambda: follower.client.get("/readyz").status_code == 200)
    answer = follower.client.post(PAGE, json={"name": NAME})
    assert (answer.status_code, answer.json()["created"]) == (201, True)
    assert NAME in leader.client.get(PAGE).json()["namespaces"]
    until(lambda: NAME in follower.client.get(PAGE).json()["namespaces"])


@pytest.mark.slow
def test_a_follower_that_does_not_know_yet_makes_clients_retry(
    start_server: Start, tmp_path: Path
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("token")
    follower = start_server(
        "--follow", "http://127.0.0.1:9", "--follow-token-file", str(token_file)
    )
    url = f"{follower.url.replace('http', 'ws', 1)}/.ws?v=5&ns={NAME}"
    with connect(url, open_timeout=20) as socket, pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=20)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013


def test_a_server_without_a_namespace_is_not_notified_of_its_promotion(
    served: Served, fresh: str
) -> None:
    with ElkynStore(mode="memory", namespace=fresh) as store:
        assert announce_term(served.url, served.token, store)


def test_a_refusal_that_came_before_the_first_message_is_read(
    served: Served, fresh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*args: Any, **options: Any) -> ClientConnection:
        connection: ClientConnection = connect(*args, **options)
        until(lambda: connection.state is State.CLOSED)
        return connection

    monkeypatch.setattr("elkyn.replication.link.load_connect", lambda: opened)
    with ElkynStore(mode="memory", namespace=fresh) as store:
        assert announce_term(served.url, served.token, store)


def test_a_program_that_serves_its_own_stores_creates_them_itself() -> None:
    async def ask(app: ElkynApp) -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(PAGE, json={"name": NAME})

    with ElkynStore(mode="memory") as store:
        app = elkyn_app({"default": store}, authorize=lambda *_args: None)
        answer = asyncio.run(ask(app))
        app.close()
    assert answer.status_code == 400
    assert "fixed by the program that runs it" in answer.json()["error"]
