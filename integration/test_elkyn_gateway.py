"""The tree served by a node: REST and the realtime protocol at the root."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from nodes import RunningNode


def ask(socket: Any, number: int, action: str, **body: Any) -> list[Any]:
    message = {"t": "d", "d": {"r": number, "a": action, "b": body}}
    socket.send(json.dumps(message))
    found: list[Any] = []
    while not found or found[-1]["d"].get("r") != number:
        found.append(json.loads(socket.recv(timeout=20)))
    return [message["d"] for message in found]


def test_the_socket_is_at_the_root_behind_a_token(node: RunningNode) -> None:
    url = f"{node.url.replace('http', 'ws', 1)}/.ws?v=5&ns=default"
    written = httpx.put(f"{node.url}/wire/a.json?ns=default", json=1, headers=node.headers)
    assert written.status_code == 200, written.text
    with connect(url, additional_headers=node.headers) as socket:
        assert json.loads(socket.recv(timeout=20))["d"]["t"] == "h"
        data, answer = ask(socket, 1, "q", p="/wire", h="")
        assert (data["b"]["d"], answer["b"]["s"]) == ({"a": 1}, "ok")
        push, answer = ask(socket, 2, "p", p="/wire/b", d=2)
        assert (push["b"], answer["b"]["s"]) == ({"p": "wire/b", "d": 2}, "ok")
    with pytest.raises(InvalidStatus):
        connect(url)


def test_a_stream_to_http_1_0_comes_without_chunks(node: RunningNode) -> None:
    address = urlsplit(node.url)
    request = (
        f"GET /old.json?ns=default HTTP/1.0\r\nHost: {address.netloc}\r\n"
        f"Authorization: Bearer {node.token}\r\nAccept: text/event-stream\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port), timeout=20) as client:
        client.sendall(request.encode())
        received = b""
        while not received.endswith(b"\n\n"):
            received += client.recv(4096)
    head, _end, body = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"x-content-type-options: nosniff" in head
    assert body.startswith(b'event: put\ndata: {"path":"/","data":null}\n')


def test_the_platforms_own_tree_is_read_only(node: RunningNode) -> None:
    url = f"{node.url.replace('http', 'ws', 1)}/.ws?v=5&ns=sys"
    with connect(url, additional_headers=node.headers) as socket:
        socket.recv(timeout=20)
        assert ask(socket, 1, "q", p="/nodes", h="")[-1]["b"]["s"] == "ok"
        assert ask(socket, 2, "p", p="/nodes", d=None)[-1]["b"]["s"] == "permission_denied"


def test_rules_are_for_the_users_trees_alone(node: RunningNode) -> None:
    rules = {"rules": {".read": True, ".write": "auth.uid != null"}}
    with httpx.Client(base_url=node.url, headers=node.headers, timeout=20) as client:
        own = client.put("/.settings/rules.json?ns=default", json=rules)
        before = client.get("/.settings/rules.json?ns=sys").content
        platform = client.put("/.settings/rules.json?ns=sys", json=rules)
        after = client.get("/.settings/rules.json?ns=sys").content
    assert own.status_code == 200
    assert platform.status_code in (401, 403)
    assert after == before


def test_the_platforms_own_tree_shows_nodes_and_workers(node: RunningNode) -> None:
    with httpx.Client(base_url=node.url, headers=node.headers, timeout=20) as client:
        nodes = client.get("/nodes.json?ns=sys").json()
        workers = client.get("/workers.json?ns=sys").json()
        assert client.get("/api/nodes").json() == list(nodes.values())
    [(node_id, shown)] = nodes.items()
    assert shown["state"] == "up"
    assert {(w["node"], w["kind"], w["state"]) for w in workers.values()} == {
        (node_id, "local", "up")
    }
