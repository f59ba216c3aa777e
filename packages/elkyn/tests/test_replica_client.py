"""Requests to a leader over connections that it closes: none that counts twice is sent twice."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from elkyn_server import until

from elkyn.replication.leader_client import LeaderClient
from sennit_core.errors import Unavailable

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Leader:
    """Answers the first request of a connection, and closes it: at once, or on the second one."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.at_once = False
        self.closed = 0
        self.requests: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                with self._listener.accept()[0] as connection:
                    self._receive(connection)
                    connection.sendall(ANSWER)
                    if not self.at_once:
                        self._receive(connection)
                self.closed += 1

    def _receive(self, connection: socket.socket) -> None:
        if head := connection.recv(4096):
            self.requests.append(head.decode().split()[1])

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def leader() -> Iterator[Leader]:
    leader = Leader()
    yield leader
    leader.close()


def test_a_request_that_must_run_once_is_not_sent_again(leader: Leader) -> None:
    client = LeaderClient(leader.url, None)
    client.send("POST", "/first")
    with pytest.raises(Unavailable, match="may have been applied"):
        client.send("POST", "/once", once=True)
    assert leader.requests == ["/first", "/once"]
    client.send("POST", "/second")
    assert client.send("POST", "/again").status == 200
    assert leader.requests[2:] == ["/second", "/again", "/again"]
    client.close()


def test_a_connection_that_the_leader_has_closed_is_not_used(leader: Leader) -> None:
    leader.at_once = True
    client = LeaderClient(leader.url, None)
    for number in (1, 2):
        assert client.send("POST", f"/{number}", once=True).status == 200
        until(lambda: leader.closed == len(leader.requests))
    assert leader.requests == ["/1", "/2"]
    client.close()
