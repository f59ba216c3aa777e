"""Replicas of real servers: followed, stopped, killed, wiped, cut off, promoted."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import httpx
import ormsgpack
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from elkyn_server import until
from websockets.sync.client import connect

from elkyn import ElkynStore
from elkyn.replication.messages import VERSION, decode, encode
from sennit_core.errors import Denied, Unavailable, Unsupported

Start = Callable[..., Any]
LOOPBACK = IPv4Address("127.0.0.1")


class Proxy:
    """Connections to a port, which can be cut and let through again."""

    def __init__(self, url: str) -> None:
        host, _colon, port = url.removeprefix("http://").partition(":")
        self._to = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cut = False
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _address = self._listener.accept()
            except OSError:
                return
            try:
                if self.cut:
                    raise ConnectionRefusedError
                far = socket.create_connection(self._to)
            except OSError:
                near.close()
                continue
            self._open += [near, far]
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                while self.cut:  # neither delivered nor reported: as a cable that was pulled
                    time.sleep(0.05)
                target.sendall(data)
        for end in (source, target):
            end.close()

    def close(self) -> None:
        self.cut = False
        self._listener.close()
        for end in self._open:
            end.close()


@pytest.fixture
def follow(start_server: Start, tmp_path: Path) -> Callable[..., Any]:
    def start(leader: Any, name: str, *options: str, url: str | None = None) -> Any:
        token = leader.data / "admin.token"
        return start_server(
            *("--follow", url or leader.url, "--follow-token-file", str(token)),
            *options,
            data=tmp_path / name,
        )

    return start


def position(served: Any) -> int:
    return int(served.client.get("/.replica/status").json()["namespaces"]["default"]["position"])


def connected(served: Any) -> bool:
    state = served.client.get("/.replica/status").json()["namespaces"]["default"]
    return bool(state["connected"]) and not state["lag"]


def unsynced(answer: httpx.Response) -> bool:
    return answer.status_code == 503 and "not received its leader's state" in answer.json()["error"]


def bytes_of(frame: str | bytes) -> bytes:
    assert isinstance(frame, bytes)
    return frame


def token_of(served: Any) -> str:
    return str((served.data / "admin.token").read_text().strip())


@pytest.mark.slow
def test_an_embedded_replica_reads_here_and_writes_there(
    start_server: Start, tmp_path: Path
) -> None:
    leader = start_server()
    leader.client.put("/a.json", json={"x": [1, {"y": "é"}]})
    token = token_of(leader)
    with ExitStack() as ends:
        options: Any = {"mode": "replica", "cluster_url": leader.url, "token": token}
        replica = ends.enter_context(ElkynStore(tmp_path / "r", **options))
        assert replica.replica is not None
        assert replica.replica.wait_for(0, timeout_seconds=30)
        events = ends.enter_context(replica.watch("/n"))
        assert replica.set("/n/a", 1) == 1
        assert replica.get("/") == {"a": {"x": [1, {"y": "é"}]}, "n": {"a": 1}}
        replica.update("/n", {"b": 2, "c/d": 3})
        key = replica.push("/n/log", "x")
        replica.transaction("/n/a", lambda n: n + 41)
        replica.delete("/n/b")
        shown = {"a": 42, "c": {"d": 3}, "log": {key: "x"}}
        assert replica.get("/n") == leader.client.get("/n.json").json() == shown
        waiting = [event.data for event in iter(lambda: events.poll(1), None)]
        assert waiting[-2:] == [42, None]
        replica.set_rules({"rules": {"open": {".read": True, ".write": True}}})
        assert replica.rules is not None
        assert replica.replica is not None
        assert replica.replica.status.connected
        assert replica.replica.status.lag == 0
        with pytest.raises(Unsupported):
            replica.set("/n", 1, ephemeral=True)
    replica = ElkynStore(mode="embedded", cluster_url=leader.url, token="wrong")
    with replica, pytest.raises(Denied):
        replica.set("/n", 1)
    leader.kill()
    with ElkynStore(tmp_path / "r", mode="replica", cluster_url=leader.url, token=token) as replica:
        assert replica.get("/n") == shown
        with pytest.raises(Unavailable, match="nothing was written"):
            replica.set("/n", 1)


@pytest.mark.slow
def test_a_replica_of_some_paths_holds_those_alone(start_server: Start, tmp_path: Path) -> None:
    leader = start_server()
    client, token = leader.client, token_of(leader)
    client.put("/.json", json={"a": {"b": 1, "c": 2}, "d": {"e": {"f": 3}}, "g": 4})
    options: Any = {"mode": "replica", "cluster_url": leader.url, "token": token}
    with ElkynStore(tmp_path / "r", paths=["/a", "/d/e"], **options) as replica:
        replica.set("/g", 5)
        assert replica.get("/") == {"a": {"b": 1, "c": 2}, "d": {"e": {"f": 3}}}
        replica.update("/", {"a/b": 7, "d/x": 1, "d/e/f": None, "g": 1})
        replica.set("/d", {"e": {"h": 1}, "x": 2})
        assert replica.get("/") == {"a": {"b": 7, "c": 2}, "d": {"e": {"h": 1}}}
    with ElkynStore(tmp_path / "r", paths=["/d"], **options) as replica:  # begins anew
        replica.set("/g", 6)
        assert replica.get("/") == {"d": {"e": {"h": 1}, "x": 2}}
        assert replica.admin.verify() == []
    with ElkynStore(tmp_path / "r", **options) as replica:
        replica.set("/h", 7)
        assert replica.get("/") == client.get("/.json").json()
    assert not (tmp_path / "r" / "set-aside").exists()


@pytest.mark.slow
def test_a_follower_serves_reads_and_passes_writes_on(start_server: Start, follow: Any) -> None:
    leader = start_server()
    leader.rules("default", {"open": {".read": True, ".write": True}, "shut": {".read": False}})
    follower = follow(leader, "follower", "--ack-timeout", "1")
    until(lambda: connected(follower))
    client = follower.client
    answer = client.put("/open/a.json", json={"n": 1}, headers={"X-Firebase-ETag": "true"})
    assert (answer.status_code, answer.json()) == (200, {"n": 1})
    assert int(answer.headers["x-elkyn-position"]) == position(follower)
    assert client.get("/open/a.json").json() == {"n": 1}
    etag = {"If-Match": answer.headers["etag"]}
    assert client.put("/open/a.json", json=2, headers=etag).json() == 2
    assert client.put("/open/a.json", json=3, headers=etag).status_code == 412
    assert client.patch("/open.json", json={"b": 1}).json() == {"b": 1}
    name = client.post("/open/log.json", json="x").json()["name"]
    assert client.delete("/open/b.json").status_code == 200
    anonymous = httpx.put(f"{follower.url}/shut.json", json=1)
    assert (anonymous.status_code, anonymous.json()) == (401, {"error": "Permission denied"})
    assert httpx.put(f"{follower.url}/open/by.json", json="anyone").status_code == 200
    shown = {"a": 2, "by": "anyone", "log": {name: "x"}}
    assert leader.client.get("/open.json").json() == client.get("/open.json").json() == shown
    follower.rules("default", {"open": {".read": True}})
    assert httpx.put(f"{follower.url}/open/by.json", json=1).status_code == 401

    with follower.stream("/open/seen.json") as events:
        assert next(events)[1] == {"path": "/", "data": None}
        at = leader.client.put("/open/seen.json", json=1).headers["x-elkyn-position"]
        assert next(events)[1] == {"path": "/", "data": 1}
    fresh = {"X-Elkyn-Min-Position": at}
    assert client.get("/open/seen.json", headers=fresh).json() == 1
    timed_out = client.get("/open.json", headers={"X-Elkyn-Min-Position": str(int(at) + 9)})
    assert timed_out.status_code == 504
    assert "the request needs" in timed_out.json()["error"]


@pytest.mark.nightly
def test_a_followers_sockets_write_through_the_leader(start_server: Start, follow: Any) -> None:
    leader = start_server()
    leader.rules("default", {"open": {".read": True, ".write": True}})
    follower = follow(leader, "follower")
    until(lambda: connected(follower))
    with follower.wire("default") as wire:
        assert wire.ask("q", p="/open", h="")["s"] == "ok"
        numbers = [wire.send("p", p=f"/open/n{i}", d=i) for i in range(20)]
        assert {wire.answer(number)["s"] for number in numbers} == {"ok"}
        assert wire.ask("m", p="/open", d={"n0": None, "x": {".sv": "timestamp"}})["s"] == "ok"
        assert wire.ask("p", p="/shut", d=1)["s"] == "permission_denied"
        assert wire.ask("p", p="/open/n1", d=1, h="stale")["s"] == "datastale"
    found = leader.client.get("/open.json").json()
    assert len(found) == 20
    assert found["n19"] == 19


@pytest.mark.nightly
def test_writes_wait_for_replicas_that_have_them(start_server: Start, follow: Any) -> None:
    leader = start_server("--ack", "replicas:1", "--ack-timeout", "3")
    follower = follow(leader, "follower")
    until(lambda: connected(follower))
    client = leader.client
    for number in range(5):
        assert client.put("/n.json", json=number).status_code == 200
        assert follower.client.get("/n.json").json() == number
    local = client.put("/n.json", json=9, headers={"X-Elkyn-Ack": "local"})
    assert local.status_code == 200
    assert client.put("/n.json", json=9, headers={"X-Elkyn-Ack": "all"}).status_code == 400
    options: Any = {"cluster_url": leader.url, "token": token_of(leader), "paths": ["/n"]}
    part = ElkynStore(mode="replica", **options)  # some of the tree: it does not count
    assert part.replica is not None
    assert part.replica.wait_for(int(local.headers["x-elkyn-position"]), 20)
    two = client.put("/n.json", json="two", headers={"X-Elkyn-Ack": "replicas:2"})
    assert two.status_code == 504
    assert "durable on the leader" in two.json()["error"]
    assert "1 of 2" in two.json()["error"]
    assert client.get("/n.json").json() == "two"
    part.close()


@pytest.mark.nightly
def test_a_follower_that_was_stopped_killed_wiped_or_cut_off_catches_up(
    start_server: Start, follow: Any
) -> None:
    leader = start_server()
    proxy = Proxy(leader.url)
    follower = follow(leader, "follower", url=proxy.url)
    until(lambda: connected(follower))
    client = leader.client

    def write(text: str) -> dict[str, str]:
        for number in range(20):
            answer = client.put(f"/{text}/{number}.json", json=text)
        return {"X-Elkyn-Min-Position": answer.headers["x-elkyn-position"]}

    follower.process.send_signal(signal.SIGSTOP)
    wanted = write("stopped")
    follower.process.send_signal(signal.SIGCONT)
    assert follower.client.get("/stopped/19.json", headers=wanted).json() == "stopped"

    proxy.cut = True
    wanted = write("cut")
    assert follower.client.get("/cut.json").json() is None
    refused = follower.client.put("/x.json", json=1, timeout=60)
    assert refused.status_code == 503
    proxy.cut = False
    until(lambda: follower.client.get("/cut/19.json").json() == "cut")

    follower.kill()
    wanted = write("killed")
    follower = follow(leader, "follower", url=proxy.url)
    until(lambda: follower.client.get("/killed/19.json", headers=wanted).json() == "killed")

    follower.stop()
    shutil.rmtree(follower.data / "default")
    wanted = write("wiped")
    follower = follow(leader, "follower", url=proxy.url)
    until(lambda: connected(follower))
    until(lambda: follower.client.get("/.json").json() == client.get("/.json").json())
    proxy.close()


@pytest.mark.nightly
def test_a_leader_that_is_stopped_answers_requests_that_wait_for_replicas(
    start_server: Start,
) -> None:
    leader = start_server("--ack", "replicas:1", "--ack-timeout", "100")
    answers: list[httpx.Response] = []

    def put() -> None:
        answers.append(
            httpx.put(f"{leader.url}/a.json", headers=leader.headers, json=1, timeout=30)
        )

    waiting = threading.Thread(target=put)
    waiting.start()
    until(lambda: leader.client.get("/a.json").json() == 1)
    code, logged = leader.stop()
    waiting.join()
    assert (answers[0].status_code, code) == (504, 0)
    assert "durable on the leader" in answers[0].text
    assert "Traceback" not in logged


@pytest.mark.nightly
def test_a_follower_that_is_stopped_answers_requests_that_wait_for_its_leader(
    start_server: Start, follow: Any
) -> None:
    leader = start_server()
    follower = follow(leader, "b")
    until(lambda: connected(follower))
    leader.process.send_signal(signal.SIGSTOP)
    answers: list[httpx.Response] = []

    def put() -> None:
        answers.append(
            httpx.put(f"{follower.url}/a.json", headers=follower.headers, json=1, timeout=30)
        )

    waiting = threading.Thread(target=put)
    waiting.start()
    until(lambda: 'kind="http"} 2' in follower.client.get("/metrics").text)
    code, logged = follower.stop()
    waiting.join()
    leader.process.send_signal(signal.SIGCONT)
    assert (answers[0].status_code, code) == (503, 0)
    assert "Traceback" not in logged


def elkyn(*words: str) -> str:
    command = [sys.executable, "-m", "elkyn.cli", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.slow
def test_a_promoted_follower_leads_and_the_old_leader_is_fenced(
    start_server: Start, follow: Any, tmp_path: Path
) -> None:
    leader = start_server("--ack", "replicas:1", "--ack-timeout", "3")
    proxy = Proxy(leader.url)
    follower = follow(leader, "b", url=proxy.url)
    until(lambda: connected(follower))
    for number in range(10):
        assert leader.client.put(f"/kept/{number}.json", json=number).status_code == 200
    proxy.cut = True
    lost = leader.client.put("/lost.json", json=1)
    assert lost.status_code == 504
    assert elkyn("promote", "--data", str(follower.data)).startswith("default leads in term 2\n")
    assert len(follower.client.get("/kept.json").json()) == 10
    assert follower.client.put("/new.json", json=1).status_code == 200
    local = {"X-Elkyn-Ack": "local"}
    assert leader.client.put("/lost.json", json=2, headers=local).status_code == 200  # not sent yet
    proxy.cut = False
    follower.stop()  # it remembers that it leads, and continues to notify the old leader
    token = str(leader.data / "admin.token")
    again = ["--follow", proxy.url, "--follow-token-file", token]
    follower = start_server(*again, data=tmp_path / "b")
    until(lambda: leader.client.put("/lost.json", json=3, headers=local).status_code == 409)
    refused = leader.client.put("/lost.json", json=4, headers=local)
    assert "another store leads since term" in refused.json()["error"]
    leader.stop()

    old = start_server(
        *("--follow", follower.url, "--follow-token-file", str(follower.data / "admin.token")),
        data=leader.data,
    )
    until(lambda: connected(old))
    assert old.client.get("/.json").json() == follower.client.get("/.json").json()
    assert old.client.get("/lost.json").json() is None
    assert old.client.put("/more.json", json=1).status_code == 200
    assert follower.client.get("/more.json").json() == 1
    old.stop()
    (aside,) = (leader.data / "default" / "set-aside").iterdir()
    with ElkynStore(aside) as store:
        assert store.get("/lost") in (2, 3)
    proxy.close()


@pytest.mark.nightly
def test_a_write_that_is_sent_again_to_a_promoted_follower_is_not_done_twice(
    start_server: Start, follow: Any
) -> None:
    leader = start_server()
    leader.client.put("/before.json", json=1)
    follower = follow(leader, "b")
    until(lambda: connected(follower))
    key = {"Idempotency-Key": "one"}
    made = leader.client.post("/list.json", json="a", headers=key).json()
    changed = {"n": {".sv": {"increment": 2}}}
    leader.client.patch("/sum.json", json=changed, headers=key)
    until(lambda: connected(follower) and follower.client.get("/sum/n.json").json() == 2)
    leader.kill()
    elkyn("promote", "--data", str(follower.data))
    assert follower.client.post("/list.json", json="a", headers=key).json() == made
    assert follower.client.patch("/sum.json", json=changed, headers=key).json() == {"n": 2}
    assert follower.client.get("/list.json").json() == {made["name"]: "a"}
    assert follower.client.get("/sum/n.json").json() == 2
    other = follower.client.post("/list.json", json="b", headers=key)
    assert (other.status_code, "another body" in other.text) == (400, True)


@pytest.mark.nightly
def test_a_follower_that_reads_nothing_uses_no_memory(start_server: Start) -> None:
    leader = start_server()
    url = leader.url.replace("http", "ws", 1) + "/.replica?ns=default"
    with connect(url, additional_headers=leader.headers, max_queue=1) as stuck:
        hello = {"node": "x", "term": 1, "position": 0, "leads": (), "mark": None, "fresh": False}
        stuck.send(encode("hello", VERSION, hello))
        assert decode(bytes_of(stuck.recv()))[0] == "welcome"
        leader.client.put("/n.json", json=0)

        def memory() -> int:
            status = Path(f"/proc/{leader.process.pid}/status").read_text()
            return int(status.partition("RssAnon:")[2].split()[0])

        for _number in range(20):
            leader.client.put("/n.json", json="x" * 500_000)
        before = memory()
        for _number in range(100):
            leader.client.put("/n.json", json="x" * 500_000)
        assert memory() - before < 20_000
    assert leader.client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "row",
    [
        [1, 2, 3, 4, 5],
        ["drop", ["a"], 1, None, None],
        ["put", None, 1, None, None],
        ["put", [b"a"], 1, None, None],
        ["put", ["a"], 1, 7, None],
        ["put", ["a"], 1, None, "who"],
    ],
)
def test_rows_that_are_no_writes_of_a_follower_are_refused(emulator: Any, row: list[Any]) -> None:
    answer = emulator.client.post("/.replica/write", content=ormsgpack.packb([row]))
    assert answer.status_code == 400


def test_only_the_write_of_an_unknown_user_is_refused(emulator: Any) -> None:
    rows = [["put", ["good"], 1, None, None], ["put", ["bad"], 1, None, {"uid": 7}]]
    answer = emulator.client.post("/.replica/write", content=ormsgpack.packb(rows))
    good, bad = ormsgpack.unpackb(answer.content)
    assert (good[1], bad[1][0]) == (None, "failure")
    assert emulator.client.get("/bad.json").json() is None


@pytest.mark.slow
def test_only_admins_follow(start_server: Start) -> None:
    leader = start_server()
    url = leader.url.replace("http", "ws", 1) + "/.replica"
    for query in ("", "?ns=default", "?ns=none", "?paths=1", "?paths=%5B%22/a%22,%22/a/b%22%5D"):
        with connect(url + query) as unknown:
            assert decode(bytes_of(unknown.recv()))[0] == "refuse"
    assert httpx.post(f"{leader.url}/.replica/promote").status_code == 401
    assert httpx.post(f"{leader.url}/.replica/write").status_code == 401
    assert leader.client.post("/.replica/write", content=b"\xff").status_code == 400
    assert leader.client.post("/.replica/promote").status_code == 400
    with connect(url, additional_headers=leader.headers) as admin:
        admin.send("text")
        assert decode(bytes_of(admin.recv()))[0] == "refuse"


def certificate(folder: Path) -> tuple[str, str]:
    """Make a certificate for loopback; returns its file and that of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(LOOPBACK)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(Encoding.PEM))
    kind, plain = PrivateFormat.PKCS8, NoEncryption()
    key_file.write_bytes(key.private_bytes(Encoding.PEM, kind, plain))
    return str(cert_file), str(key_file)


@pytest.mark.nightly
def test_a_leader_is_followed_over_tls_by_whom_its_certificate_convinces(
    start_server: Start, follow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate(tmp_path)
    leader = start_server("--tls-cert", cert, "--tls-key", key)
    assert leader.url.startswith("https://")
    leader.client.put("/n.json", json=1)
    unsynced_node = follow(leader, "unsynced")
    monkeypatch.setenv("SSL_CERT_FILE", cert)
    follower = follow(leader, "follower")
    until(lambda: connected(follower))
    assert follower.client.put("/n.json", json=2).status_code == 200
    assert follower.client.get("/n.json").json() == leader.client.get("/n.json").json() == 2
    with ElkynStore(mode="replica", cluster_url=leader.url, token=token_of(leader)) as replica:
        replica.set("/n", 3)
        assert replica.get("/n") == 3
    assert unsynced(unsynced_node.client.get("/n.json"))
    assert unsynced_node.client.put("/n.json", json=4).status_code == 503
    assert leader.client.get("/n.json").json() == 3


@pytest.mark.nightly
def test_a_follower_is_not_followed(start_server: Start, follow: Any) -> None:
    leader = start_server()
    leader.client.put("/n.json", json=1)
    follower = follow(leader, "follower")
    until(lambda: connected(follower))
    chained = follow(follower, "chained")

    def last_error() -> Any:
        return chained.client.get("/.replica/status").json()["namespaces"]["default"]["lastError"]

    assert "is not the leader: follow the leader" in until(last_error)
    assert unsynced(chained.client.get("/n.json"))
    options: Any = {"cluster_url": follower.url, "token": token_of(follower)}
    with ElkynStore(mode="replica", **options) as replica:
        status = until(lambda: replica.replica is not None and replica.replica.status.last_error)
        assert "is not the leader" in status
    _code, logged = chained.stop()
    assert logged.count("follow the leader") == 1


_CHILD = """
import sys, time
from elkyn import ElkynStore
store = ElkynStore(sys.argv[1], mode="replica", cluster_url=sys.argv[2], token=sys.argv[3])
print("open", flush=True)
time.sleep(60)
"""


@pytest.mark.nightly
@pytest.mark.crash
def test_a_replica_killed_again_and_again_holds_a_beginning(
    start_server: Start, tmp_path: Path
) -> None:
    leader = start_server()
    choice, folder = random.Random(7), tmp_path / "replica"
    done = threading.Event()
    written: list[None] = []

    def write() -> None:
        with httpx.Client(base_url=leader.url, headers=leader.headers, timeout=60) as client:
            while not done.is_set():
                client.put(f"/n/k{len(written)}.json", json=len(written))
                written.append(None)

    writer = threading.Thread(target=write)
    writer.start()
    held = 0
    for _kill in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(folder), leader.url, token_of(leader)],
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(choice.uniform(0.05, 0.6))
        child.kill()
        child.communicate()
        with ElkynStore(folder) as store:
            values = store.get("/n") or {}
            assert sorted(values.values()) == list(range(len(values)))
            assert len(values) == store.position >= held
            assert store.admin.verify() == []
            held = store.position
    done.set()
    writer.join()
    assert 0 < held <= len(written) + 1
