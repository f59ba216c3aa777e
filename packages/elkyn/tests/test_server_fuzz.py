"""Malformed requests and messages at a real server: all are refused."""

from __future__ import annotations

import http.client
import random
from typing import Any

import pytest

SEGMENTS = [
    *["a", "b", "%2f", "%00", "%ff", "a.b", "$x", ".priority", ".watch", ".json", ".settings"],
    *["rules.json", "auth", "token", "metrics", "index.html", "", "..", "%2e%2e", "0", "-1"],
    *["x" * 800, "identitytoolkit.googleapis.com", "v1", "accounts:signUp", ".ws", "[", "?", "+"],
]
PARAMETERS = [
    *["ns", "print", "shallow", "orderBy", "startAt", "equalTo", "limitToFirst", "format"],
    *["callback", "download", "timeout", "writeSizeLimit", "auth", "auth_variable_override"],
    "x-http-method-override",
]
VALUES = [
    *["", "true", "pretty", '"$key"', '"a/b"', "5", "-1", "1e999", "null", "{}", "[1", "export"],
    *["1s", "tiny", "owner", "fuzz", "%ff", "NaN", "PUT", "DELETE", '"\\ud800"', '1,"k"'],
]
BODIES = [
    *[
        b"",
        b"null",
        b"{}",
        b"[]",
        b'"x"',
        b'{"a":1}',
        b'{"a/b":{".sv":"timestamp"}}',
        b"{",
        b"1e400",
    ],
    *[b'{"rules":{}}', b'{".value":1,".priority":{}}', b'{".sv":{"increment":"x"}}', b"[" * 5000],
    *[b'{".priority":5}', b'{"":1}', b"\xff", b'"\\ud800"'],
]
HEADERS = {
    "authorization": ["Bearer owner", "Bearer x", "Basic a", "Bearer \xff"],
    "if-match": ["x", "null_etag"],
    "if-none-match": ["x", "null_etag"],
    "last-event-id": ["5", "-1", "9" * 30],
    "idempotency-key": ["k", "x" * 300],
    "origin": ["null", "http://localhost:1", "http://["],
}
METHODS = ["GET", "PUT", "PATCH", "POST", "DELETE", "HEAD", "OPTIONS", "TRACE", "XX"]

PATHS = ["/", "/a", "a//b", "/a.b", "/a/.priority", "x" * 900, 5, None, "/" + "d/" * 40, "/$x"]
DATA: list[Any] = [
    *[None, 1, "x", {"a": 1}, {"a/b": {".sv": "timestamp"}}, {".value": 1, ".priority": {}}],
    *[
        [1, [2]],
        {"a": {".sv": {"increment": 1e308}}},
        {"a": 1, "a/b": 2},
        {".priority": 3},
        {"": 1},
    ],
]
QUERIES: list[Any] = [
    *[{}, {"i": ".key"}, {"i": "n", "l": 1, "vf": "l"}, {"sp": {}, "i": ".value"}, {"l": -1}, 5],
    *[{"l": 1.5}, {"i": "a.b"}, {"i": ".priority", "sp": "x", "sn": 5}, [], {"l": 10**30}],
]
ACTIONS = ["q", "n", "p", "m", "g", "o", "om", "oc", "auth", "gauth", "unauth", "s", "echo", "x"]


@pytest.mark.slow
def test_no_request_makes_the_server_fail(emulator: Any) -> None:
    pick = random.Random(5)
    connection = http.client.HTTPConnection(emulator.url.removeprefix("http://"), timeout=20)
    for _ in range(600):
        path = "/" + "/".join(pick.choice(SEGMENTS) for _ in range(pick.randint(0, 4)))
        path += pick.choice(["", ".json", ".json"])
        query = "&".join(
            f"{pick.choice(PARAMETERS)}={pick.choice(VALUES)}" for _ in range(pick.randint(0, 3))
        )
        headers = {k: pick.choice(v) for k, v in HEADERS.items() if pick.random() < 0.3}
        body = pick.choice(BODIES)
        method = pick.choice(METHODS)
        if ".watch" in path:
            method = "PUT"
        connection.request(method, f"{path}?{query}".replace(" ", "%20"), body, headers)
        answer = connection.getresponse()
        assert answer.status < 500, (method, path, query, headers, body, answer.read())
        answer.read()
    connection.close()


def test_no_message_makes_a_socket_fail(emulator: Any) -> None:
    pick = random.Random(6)
    fields: dict[str, list[Any]] = {
        "p": PATHS,
        "d": DATA,
        "q": QUERIES,
        "h": ["", "x", 5, {}],
        "t": [1, "x", None, {}],
        "cred": ["owner", "x", 5],
        "authvar": [{"uid": "a"}, 5, None],
    }
    with emulator.wire("fuzz") as wire:
        for _ in range(10):
            numbers = []
            for _ in range(40):
                body = {name: pick.choice(v) for name, v in fields.items() if pick.random() < 0.6}
                numbers.append(wire.send(pick.choice(ACTIONS), **body))
            answers = [wire.answer(number) for number in numbers]
            assert "internal_error" not in [answer["s"] for answer in answers]
        assert wire.ask("s")["s"] == "ok"
