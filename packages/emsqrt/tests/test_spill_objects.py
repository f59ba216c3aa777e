"""Spilling to real servers: SeaweedFS for S3, fake-gcs-server for Google Cloud Storage."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from emsqrt.spill import SpillDamaged, SpillLost, SpillManager
from emsqrt.spill.clients import open_client
from emsqrt.spill.objects import sweep_objects
from emsqrt.spill.servers import BUCKET, SECRET_KEY, Server, azurite, fake_gcs, seaweedfs
from sennit_core.errors import Unsupported, UsageError


def running(server: AbstractContextManager[Server]) -> Iterator[Server]:
    try:
        started = server.__enter__()
    except Unsupported as error:
        pytest.skip(str(error))
    try:
        yield started
    finally:
        server.__exit__(None, None, None)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("obstore")
    yield from running(seaweedfs(tmp_path_factory.mktemp("seaweedfs")))


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(fake_gcs(tmp_path_factory.mktemp("gcs")))


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("obstore")
    yield from running(azurite(tmp_path_factory.mktemp("azurite")))


@pytest.fixture(params=["s3", "gcs", "azure"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


def opened(server: Server, **options: Any) -> SpillManager:
    small: dict[str, Any] = {"part_bytes": 1 << 20, "buffer_bytes": 4 << 20}
    return SpillManager(server.uri, options={**server.options, **small}, **options)


def left(server: Server) -> list[str]:
    client, prefix = open_client(server.uri, server.options)
    return [facts.key for facts in client.list(prefix)]


def blocks_of(seed: int) -> list[bytes]:
    source = random.Random(seed)
    noise = [source.randbytes(source.randrange(1, 300_000)) for _ in range(20)]
    return [b"the same line again and again\n" * 30_000, *noise]


@pytest.mark.sample(1)
@pytest.mark.slow
def test_segments_round_trip_through_a_real_store(server: Server) -> None:
    with opened(server) as spill:
        wanted = {seed: blocks_of(seed) for seed in (1, 2)}
        with spill.create("a") as first, spill.create("b") as second:
            for one, two in zip(*wanted.values(), strict=True):
                first.append(one, 1)
                second.append(two, 1)
            segments = [first.finish(), second.finish()]
        assert len(left(server)) > 4
        assert spill.stats.written_bytes < spill.stats.raw_bytes  # auto compresses for a network
        for segment, blocks in zip(segments, wanted.values(), strict=True):
            buffer = bytearray(segment.block_raw_max)
            with spill.open(segment) as reader:
                for block in blocks:
                    assert reader.read_into(buffer) == (len(block), 1)
                    assert buffer[: len(block)] == block
                assert reader.read_into(buffer) == (0, 0)
                reader.seek(13)
                assert reader.read_into(buffer)[0] == len(blocks[13])
        spill.remove(segments[0])
        assert left(server)
    assert left(server) == []


def test_an_aborted_segment_leaves_no_object(server: Server) -> None:
    with opened(server, codec="none") as spill:
        with spill.create("a") as writer:
            for _ in range(5):
                writer.append(bytes(1 << 20), 1)
            assert spill.buffer_bytes <= 4 << 20
        assert left(server) == []


def test_a_removed_object_is_damage_and_not_an_answer(server: Server) -> None:
    with opened(server, codec="none") as spill:
        with spill.create("a") as writer:
            for _ in range(4):
                writer.append(bytes(1 << 20), 1)
            segment = writer.finish()
        client, _ = open_client(server.uri, server.options)
        client.delete(left(server)[2:3])
        with spill.open(segment) as reader:
            buffer = bytearray(1 << 20)
            reader.read_into(buffer)
            with pytest.raises(SpillDamaged):
                reader.read_into(buffer)


def test_wrong_credentials_end_it_without_being_shown(s3: Server) -> None:
    secret = "a-wrong-secret-that-must-not-be-shown"
    options = {**s3.options, "secret_access_key": secret}
    with SpillManager(s3.uri, options=options) as spill, spill.create("a") as writer:
        writer.append(b"abc", 1)
        with pytest.raises(SpillLost) as caught:
            writer.finish()
    shown = f"{caught.value!r} {caught.value} {caught.value.to_json()} {caught.value.__cause__}"
    assert secret not in shown
    assert SECRET_KEY not in shown
    assert not caught.value.__cause__


def test_credentials_in_the_uri_are_refused_unseen() -> None:
    with pytest.raises(UsageError) as caught:
        SpillManager("s3://key:hunter2@bucket/prefix")
    assert "hunter2" not in str(caught.value)


def test_credentials_come_from_the_environment(s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.options["endpoint"])
    monkeypatch.setenv("AWS_REGION", s3.options["region"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.options["access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.options["secret_access_key"])
    with SpillManager(s3.uri) as spill, spill.create("a") as writer:
        writer.append(b"abc", 1)
        segment = writer.finish()
        with spill.open(segment) as reader:
            assert reader.read_into(bytearray(3)) == (3, 1)


@pytest.mark.slow
def test_a_server_that_is_gone_is_abandoned_in_time() -> None:
    options = {"endpoint": "http://127.0.0.1:9", "access_key_id": "a", "secret_access_key": "b"}
    spill = SpillManager("s3://bucket", options=options, retry_max_ms=300)
    with spill, spill.create("a") as writer:
        writer.append(b"abc", 1)
        with pytest.raises(SpillLost, match="s3://bucket"):
            writer.finish()


@pytest.mark.parametrize(
    ("uri", "options", "message"),
    [
        ("s3://", {}, "names no bucket"),
        ("ftp://host/x", {}, "cannot spill to ftp"),
        ("s3://bucket/x", {"endpiont": "x"}, "unknown spill option endpiont"),
    ],
)
def test_invalid_arguments_are_refused(uri: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SpillManager(uri, options=options)


def test_tenants_have_prefixes_of_their_own(server: Server) -> None:
    with opened(server, tenant="alice") as spill, spill.create("a") as writer:
        writer.append(b"abc", 1)
        writer.finish()
        assert all(key.startswith("runs/alice/") for key in left(server))


_DIES = """
import sys, time
from emsqrt.spill import SpillManager
uri, *pairs = sys.argv[1:]
options = dict(pair.split("=", 1) for pair in pairs) | {"part_bytes": 1 << 18}
spill = SpillManager(uri, options=options, codec="none")
writer = spill.create("a")
for number in range(1000):
    writer.append(bytes(1 << 18), 1)
    if number == 4:
        print("writing", flush=True)
    time.sleep(0.01)
"""


@pytest.mark.sample(1)
@pytest.mark.crash
def test_a_killed_runs_objects_are_swept_by_age(server: Server) -> None:
    arguments = [f"{name}={value}" for name, value in server.options.items()]
    with subprocess.Popen(
        [sys.executable, "-c", _DIES, server.uri, *arguments], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"writing\n"
        os.kill(child.pid, signal.SIGKILL)
    dead = len(left(server))
    assert dead >= 3
    with opened(server) as spill, spill.create("alive") as writer:
        time.sleep(2.5)
        writer.append(b"abc", 1)
        writer.finish()
        assert sweep_objects(server.uri, 3600, **server.options) == 0
        assert sweep_objects(server.uri, 2, **server.options) == dead
        assert len(left(server)) == 1


def test_the_bucket_is_named_in_errors(server: Server) -> None:
    with opened(server) as spill:
        assert BUCKET in spill.place


@pytest.mark.nightly
@pytest.mark.crash
def test_a_store_that_dies_in_mid_write_ends_cleanly(tmp_path: Path) -> None:
    with fake_gcs(tmp_path) as server:
        options: dict[str, Any] = {**server.options, "timeout_seconds": "0.2"}
        spill = SpillManager(server.uri, options=options, codec="none", retry_max_ms=200)
        with spill, spill.create("a") as writer:
            writer.append(bytes(1 << 17), 1)
            server.process.kill()
            server.process.wait()
            with pytest.raises(SpillLost):
                writer.finish()
