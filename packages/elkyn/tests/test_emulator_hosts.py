"""Under which host names an emulator answers, and its errors for the others."""

from __future__ import annotations

from collections.abc import Callable
from socket import create_connection
from typing import Any

import httpx
import pytest
from elkyn_server import Served, Wire
from websockets import Origin
from websockets.sync.client import connect

from elkyn.cli import main
from elkyn.errors import UnknownHost
from elkyn.server.cors import Origins

Start = Callable[..., Served]


def ask(served: Served, host: str, **headers: str) -> httpx.Response:
    sent = {"host": host, "authorization": "Bearer owner", **headers}
    return httpx.put(f"{served.url}/a.json", headers=sent, json=1, timeout=20)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:9000", "http://127.0.0.1:3000"),
        ("[::1]:9000", None),
        ("10.0.2.2:9000", None),  # the machine that runs an Android emulator
        ("192.168.1.5:9000", "http://192.168.1.5:5173"),
        ("192.168.1.5:9000", "http://localhost:5173"),
        ("elkyn:9000", "http://elkyn:3000"),
        ("Elkyn", "http://localhost"),
        ("localhost", "https://elkyn"),
    ],
)
def test_addresses_and_allowed_hosts_are_served(host: str, origin: str | None) -> None:
    origins = Origins(loopback_only=True, hosts=["elkyn"])
    headers = {"host": host} if origin is None else {"host": host, "origin": origin}
    origins.check(headers)
    if origin is not None:
        assert dict(origins.headers(headers))["access-control-allow-origin"] == origin


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example", "origin": "http://evil.example"},  # DNS rebinding
        {"host": "elkyn.evil.example"},
        {"host": "localhost", "origin": "https://evil.example"},
        {"host": "localhost", "origin": "http://203.0.113.7"},
        {"host": "192.168.1.5", "origin": "http://192.168.1.6"},
        {"host": "localhost:9000@evil.example"},
        {"host": "localhost", "origin": "null"},
        {"host": "localhost", "origin": "http://[x"},
        {"host": ""},
        {},
    ],
)
def test_other_hosts_and_pages_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(UnknownHost):
        Origins(loopback_only=True, hosts=["elkyn"]).check(headers)


def test_a_refusal_of_a_host_names_the_option_that_allows_it(emulator: Any) -> None:
    answer = ask(emulator, "phone.test:9000")
    assert answer.status_code == 403
    assert answer.json() == {
        "error": "the emulator refuses the Host header 'phone.test:9000'; to allow it, restart "
        "with: elkyn serve --emulator --allow-host phone.test"
    }
    page = ask(emulator, "localhost", origin="https://app.test")
    assert page.status_code == 403
    assert "refuses the Origin header 'https://app.test'" in page.json()["error"]
    assert "--allow-host app.test" in page.json()["error"]


def test_a_client_at_a_refused_host_gets_the_error_on_its_socket(emulator: Any) -> None:
    port = int(emulator.port)
    for host, origin in (("phone.test", None), ("localhost", Origin("https://phone.test"))):
        url = f"ws://{host}:{port}/.ws?v=5&ns=hosts"
        with (
            create_connection(("127.0.0.1", port)) as plain,
            connect(url, origin=origin, sock=plain, open_timeout=20) as socket,
        ):
            wire = Wire(socket)
            answer = wire.ask("p", p="/a", d=1)
            assert answer["s"] == "permission_denied"
            assert "--allow-host phone.test" in answer["d"]
    assert emulator.client.get("/a.json?ns=hosts").json() is None


@pytest.mark.slow
def test_an_emulator_serves_the_configured_hosts(start_server: Start) -> None:
    served = start_server("--emulator", "--allow-host", "phone.test", "--allow-host", "tree")
    assert ask(served, "phone.test:9000").status_code == 200
    page = ask(served, "tree", origin="http://phone.test")
    assert page.headers["access-control-allow-origin"] == "http://phone.test"
    assert ask(served, "other.test").status_code == 403


@pytest.mark.slow
def test_an_emulator_listens_where_others_can_reach_it_and_says_so(start_server: Start) -> None:
    served = start_server("--emulator", "--host", "0.0.0.0")
    assert (
        served.access == "emulator: every client that reaches 0.0.0.0 is admin as 'Bearer owner'\n"
    )
    port = served.url.rpartition(":")[2]
    for host in ("127.0.0.1", "127.0.0.2"):
        answer = httpx.put(
            f"http://{host}:{port}/a.json", headers={"authorization": "Bearer owner"}, json=1
        )
        assert answer.status_code == 200, host


def test_other_servers_reject_allowed_hosts(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--data", str(tmp_path), "--allow-host", "phone.test"]) == 2
    assert "--allow-host is for --emulator" in capsys.readouterr().err
