"""A partial result is shown as one by the verb and in Python, whatever its format."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pyarrow as pa
import pytest

from elytra.client.client import Client
from sennit.cli import run

MISSING = {
    "shards": 2,
    "rows": 2000,
    "datasets": [{"dataset": "big", "shards": 2, "rows": 2000, "nodes": ["oslo"]}],
}
NOTE = (
    "the result is partial: 2 shards with 2000 rows are missing\n"
    "  big: 2 shards, 2000 rows; on nodes: oslo\n"
)


def arrow() -> bytes:
    sink = io.BytesIO()
    table = pa.table({"n": [1000]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


BODIES = {
    "application/json": b'{"columns":[{"name":"n","type":"Int64"}],"rows":[["1000"]],"truncated":false}',
    "text/csv": b"n\n1000\n",
    "application/vnd.apache.arrow.stream": arrow(),
}


class _Node(BaseHTTPRequestHandler):
    """Answers as a node whose peers are away, if the request allows it."""

    def do_POST(self) -> None:
        document: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = BODIES[self.headers["Accept"]]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if document.get("allowPartial"):
            self.send_header("Sennit-Missing", json.dumps(MISSING))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the library's
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Node) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("SENNIT_URL", address)
        monkeypatch.setenv("SENNIT_TOKEN", "t")
        try:
            yield address
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.usefixtures("url")
def test_the_verb_notes_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--csv"]):
        assert run(["sql", "SELECT 1", "--allow-partial", *words]) == 0
        printed = capsys.readouterr()
        assert "1000" in printed.out
        assert printed.err == NOTE
    assert run(["sql", "SELECT 1", "--allow-partial", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["missing"] == MISSING
    assert run(["sql", "SELECT 1"]) == 0
    assert capsys.readouterr().err == ""


def test_a_result_in_python_says_what_is_missing(url: str) -> None:
    with Client(url, token="t") as client:
        assert client.sql("SELECT 1", allowPartial=True).manifest["missing"] == MISSING
        assert "missing" not in client.sql("SELECT 1").manifest
