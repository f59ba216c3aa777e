"""One HTTP connection: what is tried again, what is not, and what errors become."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from elytra.client.transport import Transport, wait_for
from sennit_core.errors import (
    Busy,
    DeadlineExceeded,
    NotFound,
    RemoteError,
    Unavailable,
    UsageError,
)
from sennit_core.testing import ManualClock


class Script:
    """A server that answers from a list, and records its requests."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.requests: list[tuple[str, bytes]] = []

    def handler(script: "Script") -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                script.requests.append((self.command, body))
                status, content = script.answers.pop(0)
                if status == 0:
                    self.close_connection = True  # hang up without a word
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        for verb in ("GET", "PUT", "POST", "DELETE"):
            setattr(Handler, f"do_{verb}", Handler.answer)
        return Handler


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def transport(script: Script) -> Iterator[Transport]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), script.handler())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    opened = Transport(url, "secret", clock=ManualClock(), retry_seconds=10)
    yield opened
    opened.close()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("trouble", [(503, b"later"), (0, b""), (429, b'{"code": "busy"}')])
def test_a_passing_trouble_is_waited_out(
    transport: Transport, script: Script, trouble: tuple[int, bytes]
) -> None:
    script.answers = [trouble, trouble, (200, b"{}")]

    assert transport.json("GET", "/x") == {}
    assert len(script.requests) == 3


def test_a_body_is_rebuilt_for_each_attempt(transport: Transport, script: Script) -> None:
    script.answers = [(503, b""), (200, b"")]

    transport.put(
        "/x", lambda: iter([b"ab", b"c"]), headers={"Content-Length": "3"}, retry_seconds=10
    )

    assert script.requests == [("PUT", b"abc")] * 2


def test_a_post_whose_fate_is_unknown_is_not_sent_twice(
    transport: Transport, script: Script
) -> None:
    script.answers = [(0, b"")]

    with pytest.raises(Unavailable):
        transport.json("POST", "/x", {})
    assert len(script.requests) == 1


def test_patience_ends(transport: Transport, script: Script) -> None:
    script.answers = [(503, b'{"error": "full", "code": "busy"}')] * 100

    with pytest.raises(Busy, match="full"):
        transport.json("GET", "/x")
    assert 5 < len(script.requests) < 20


def test_errors_become_exceptions_again(transport: Transport, script: Script) -> None:
    body = b'{"error": "no", "code": "not-found", "hint": "try b", "details": {"kind": "dataset", "name": "a"}}'
    script.answers = [(404, body), (404, b'{"error": "elkyn says no"}'), (418, b"teapot")]

    with pytest.raises(NotFound) as found:
        transport.json("GET", "/x")
    assert (found.value.kind, found.value.hint) == ("dataset", "try b")
    with pytest.raises(NotFound, match="404: elkyn says no"):
        transport.json("GET", "/x")
    with pytest.raises(RemoteError, match="418: teapot"):
        transport.json("GET", "/x")


def test_an_error_in_a_stream_is_raised_before_the_first_byte(
    transport: Transport, script: Script
) -> None:
    script.answers = [(400, b'{"error": "bad", "code": "usage"}')]

    with pytest.raises(UsageError, match="bad"), transport.stream("GET", "/x"):
        pass


def test_an_unreachable_address_is_reported() -> None:
    transport = Transport("http://127.0.0.1:9", clock=ManualClock())

    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9") as caught:
        transport.json("GET", "/x")
    transport.close()
    assert "platform status" in (caught.value.hint or "")


@pytest.mark.parametrize("url", ["", "localhost:8600", "ftp://x", "http://"])
def test_an_invalid_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="address"):
        Transport(url)


def test_waiting_ends_with_an_answer_or_in_time() -> None:
    clock = ManualClock()
    answers = iter([None, None, 7])

    assert wait_for(lambda: next(answers), what="it", seconds=60, clock=clock) == 7
    with pytest.raises(DeadlineExceeded, match="it did not finish within 5 s"):
        wait_for(lambda: None, what="it", seconds=5, clock=clock)
