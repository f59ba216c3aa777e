"""What each setting does, seen from outside a node; a setting without such a test cannot exist."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as adbc
import httpx
import pytest
import setting_effects_of_cleanup  # noqa: F401  (registers its effects)
import setting_effects_of_javascript  # noqa: F401  (too)
import setting_effects_of_peers  # registers its effects
import setting_effects_of_python  # noqa: F401  (too)
import setting_effects_of_ray  # noqa: F401  (as well)
import setting_effects_of_workers  # noqa: F401  (likewise)
from opened_node import OpenNode, OpenNodes
from setting_effects import EFFECTS, Effect, effect_of

from elytra.client.transport import wait_for
from nodes import platform, running_node
from sennit import run_file
from sennit.settings import Settings
from sennit.settings_loading import load
from sennit_core.errors import UsageError


def test_every_setting_has_an_effect_that_is_tested() -> None:
    sections = {section.name: getattr(Settings(), section.name) for section in fields(Settings)}
    known = {
        f"{name}.{field.name}" for name, section in sections.items() for field in fields(section)
    }
    assert set(EFFECTS) == known


@pytest.mark.sample(6)
@pytest.mark.slow
def test_what_a_setting_does(
    effect: Effect, opened: OpenNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    effect(opened, tmp_path, monkeypatch)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each effect, named like its first setting."""
    if "effect" in metafunc.fixturenames:
        distinct = {test: name for name, test in reversed(EFFECTS.items())}
        cases = [
            pytest.param(test, id=name, marks=pytest.mark.nightly if _is_of_peers(test) else ())
            for test, name in distinct.items()
        ]
        metafunc.parametrize("effect", cases)


def _is_of_peers(effect: Effect) -> bool:
    """Return whether an effect may need several nodes, each a process."""
    return effect.__module__ == setting_effects_of_peers.__name__


@effect_of("network.host", "network.port")
def the_address_is_listened_on(
    _opened: OpenNodes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENNIT_NETWORK__HOST", "127.0.0.3")
    flags = ("--api-only", "--allow-host", "phone.test", "--allow-host", "tree.test")
    with running_node(folder / "node", *flags) as node:  # with --port 0: any free one
        assert node.url.startswith("http://127.0.0.3:")
        assert not node.url.endswith(":8600")
        assert httpx.get(f"{node.url}/healthz").status_code == 200
        for host, status in (("phone.test", 200), ("tree.test", 200), ("other.test", 403)):
            answer = httpx.get(f"{node.url}/healthz", headers={"host": host})
            assert answer.status_code == status


@effect_of("network.insecure")
def another_host_is_bound_without_tls(
    _opened: OpenNodes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENNIT_NETWORK__HOST", "0.0.0.0")
    with pytest.raises(UsageError, match="TLS"):
        load(folder, {})
    monkeypatch.setenv("SENNIT_NETWORK__INSECURE", "true")
    assert load(folder, {}).network.host == "0.0.0.0"


@effect_of("network.tls_certificate", "network.tls_key")
def the_node_speaks_tls(_opened: OpenNodes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    monkeypatch.setenv("SENNIT_NETWORK__TLS_CERTIFICATE", str(certificate))
    monkeypatch.setenv("SENNIT_NETWORK__TLS_KEY", str(key))
    with running_node(folder / "node", "--api-only") as node:
        trusted = ssl.create_default_context(cafile=str(certificate))
        assert node.url.startswith("https://")
        assert httpx.get(f"{node.url}/healthz", verify=trusted).status_code == 200
        running = run_file.read(folder / "node")
        assert running is not None
        assert running.flight is not None
        flight = running.flight
        assert flight.startswith("grpc+tls://")
        options = {
            "adbc.flight.sql.authorization_header": f"Bearer {node.token}",
            "adbc.flight.sql.client_option.tls_root_certs": certificate.read_text(),
        }
        with adbc.connect(flight, options, autocommit=True) as client, client.cursor() as cursor:
            cursor.execute("select 1")
            assert cursor.fetchone() == (1,)


@effect_of("network.flight", "network.flight_port")
def flight_sql_is_served_on_a_port(
    _opened: OpenNodes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("SENNIT_NETWORK__FLIGHT_PORT", str(port))
        refused = platform("up", "--port", "0", "--api-only", data=folder, check=False)
        assert refused.returncode
        assert "--no-flight" in refused.stderr
        monkeypatch.setenv("SENNIT_NETWORK__FLIGHT", "false")
        with running_node(folder, "--api-only") as node:
            assert httpx.get(f"{node.url}/api/stats", headers=node.headers).json()["flight"] is None
    monkeypatch.setenv("SENNIT_NETWORK__FLIGHT", "true")
    with running_node(folder, "--api-only") as node:
        stats = httpx.get(f"{node.url}/api/stats", headers=node.headers).json()
        assert stats["flight"] == f"grpc://127.0.0.1:{port}"


@effect_of("network.allowed_hosts")
def a_further_host_is_answered(opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch) -> None:
    node = opened({"network.allowed_hosts": ["lake.example"]})
    for host, status in (("lake.example", 200), ("other.example", 403)):
        assert node.client.get("/healthz", headers={"host": host}).status_code == status


@effect_of("network.allowed_origins")
def pages_of_an_origin_read_answers(
    opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch
) -> None:
    node = opened({"network.allowed_origins": ["https://app.example"]})
    answer = node.client.get("/api/stats", headers={"origin": "https://app.example"})
    assert answer.headers["access-control-allow-origin"] == "https://app.example"


@effect_of("storage.part_bytes")
def uploads_have_parts_of_that_size(
    opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch
) -> None:
    node = opened({"storage.part_bytes": "1MiB"})
    started = node.client.post("/api/start-upload", json={"name": "a.csv", "size": 4_000_000})
    assert started.json()["partBytes"] == 1 << 20


@effect_of("storage.keep_source")
def sources_are_kept_unless_an_upload_says_no(
    opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch
) -> None:
    node = opened({"storage.keep_source": True})
    node.upload("kept.csv", b"a\n1\n")
    node.upload("dropped.csv", b"a\n1\n", options='{"keepSource": false}')
    assert source_of(node, "kept") is not None
    assert source_of(node, "dropped") is None


@pytest.mark.slow
def test_sources_are_not_kept_unless_an_upload_says_so(plain: OpenNode) -> None:
    plain.upload("gone.csv", b"a\n1\n")
    plain.upload("here.csv", b"a\n1\n", options='{"keepSource": true}')
    assert source_of(plain, "gone") is None
    assert source_of(plain, "here") is not None


def source_of(node: OpenNode, dataset: str) -> Any:
    snapshot = node.client.get(f"/api/datasets/{dataset}/snapshots/head").json()
    return snapshot["shards"][0].get("sourceObject")


@effect_of("storage.verify")
def every_statement_reads_its_shards_whole(
    opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch
) -> None:
    rows = "".join(f"{os.urandom(16).hex()}\n" for _ in range(100_000))
    for mode, is_whole in (("always", True), ("open", False)):
        node = opened({"storage.verify": mode, "emsqrt.executors": 1})
        node.upload("t.csv", f"a\n{rows}".encode())
        stored_bytes = node.client.get("/api/datasets/t").json()["bytes"]
        read_bytes = []
        for _ in range(3):
            answered = node.client.post("/api/query", json={"sql": "SELECT count(*) FROM t"})
            assert answered.status_code == 200, answered.text
            (executor,) = node.client.get("/api/stats").json()["executors"]
            counters = Path(f"/proc/{executor['pid']}/io").read_text()
            read_bytes.append(int(counters.split()[1]))
        assert (read_bytes[2] - read_bytes[1] >= stored_bytes) is is_whole


@effect_of("storage.quota_bytes", "storage.quota_objects", "storage.reserve_bytes")
def writes_that_leave_too_little_room_are_refused(
    opened: OpenNodes, folder: Path, _env: pytest.MonkeyPatch
) -> None:
    disk_bytes = shutil.disk_usage(folder).total
    refusals = {
        "storage.quota_bytes": (100, "of its quota of 100 B"),
        "storage.quota_objects": (2, "of its quota of 2"),
        "storage.reserve_bytes": (disk_bytes, "are reserved"),
    }
    for name, (value, reason) in refusals.items():
        node = opened({name: value})
        for _ in range(3):
            sql = {"sql": "CREATE OR REPLACE TABLE t AS SELECT random() AS a"}
            answer = node.client.post("/api/query", json=sql)
        if name == "storage.reserve_bytes":
            # At most a sixteenth of the disk is reserved, of which this machine may have more.
            storage = node.client.get("/api/stats").json()["storage"]
            assert storage["reservedBytes"] == pytest.approx(disk_bytes / 16, rel=0.1)
            continue
        assert answer.status_code == 507, answer.text
        assert reason in answer.text


@effect_of("storage.retention_grace_seconds")
def retired_objects_wait(opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch) -> None:
    for seconds, left in ((0.0, 0), (1000.0, 2)):
        node = opened({"storage.retention_grace_seconds": seconds})
        node.upload("t.csv", b"a\n1\n")
        lake = node.node.lake
        info = lake.catalog.get("t")
        assert info.head is not None
        lake.retention.retire(lake.catalog.objects_of(info.id, info.head))
        node.client.delete("/api/datasets/t")
        lake.retention.sweep_retired()
        assert node.client.get("/api/stats").json()["storage"]["objects"] == left


@effect_of("storage.scrub_days", "storage.scrub_rate_bytes")
def a_scrub_is_planned_and_runs_at_its_rate(
    opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch
) -> None:
    node = opened({"storage.scrub_days": 1e-9, "storage.scrub_rate_bytes": 64 << 10})
    scrub = node.client.get("/api/stats").json()["storage"]["scrub"]
    assert scrub["nextAt"] > 0
    assert node.node.lake.scrubber.rate_bytes == 64 << 10
    assert (
        opened({"storage.scrub_days": 0}).client.get("/api/stats").json()["storage"]["scrub"]
        is None
    )


@effect_of(
    *(f"storage.{name}_hours" for name in ("compact", "statistics", "expire", "sweep", "cleanup"))
)
def maintenance_has_its_periods(opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch) -> None:
    names = ("compact", "statistics", "expire", "sweep", "cleanup")
    node = opened({f"storage.{name}_hours": 1e-6 for name in names})
    for name in names:
        finished = partial(_finished, node, name)
        wait_for(finished, what=name, seconds=60)
    node = opened({f"storage.{name}_hours": 0 for name in names})
    assert all(_task(node, name)["nextAt"] == 0 for name in names)


def _finished(node: OpenNode, name: str) -> bool | None:
    return _task(node, name)["finishedAt"] > 0 or None


def _task(node: OpenNode, name: str) -> dict[str, Any]:
    found = node.client.get("/api/maintenance").json()
    return next(each for each in found if each["task"] == name)


@effect_of("analytics.engine")
def queries_without_an_engine_run_on_the_nodes(
    opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch
) -> None:
    for engine in ("duckdb", "emsqrt"):
        node = opened({"analytics.engine": engine})
        node.upload("t.csv", b"a\n1\n")
        query = {"sql": "SELECT a FROM t"}
        assert node.client.post("/api/query", json=query).headers["sennit-engine"] == engine
        other = {**query, "engine": "duckdb"}
        assert node.client.post("/api/query", json=other).headers["sennit-engine"] == "duckdb"


@effect_of("storage.retention_keep", "storage.retention_days")
def versions_expire_by_the_nodes_rule(
    opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch
) -> None:
    for days, left in ((0.0, 2), (1.0, 4)):
        node = opened({"storage.retention_keep": 2, "storage.retention_days": days})
        node.upload("t.csv", b"a\n1\n")
        for number in range(3):
            body = {"sql": f"INSERT INTO t VALUES ({number})"}
            assert node.client.post("/api/query", json=body).status_code == 200
        node.node.lake.maintenance.run("expire")
        assert len(node.client.get("/api/datasets/t/snapshots").json()) == left


@effect_of("security.key_file", "security.passphrase_file", "security.plain_bytes")
def a_key_unlocks_encrypted_datasets(
    opened: OpenNodes, folder: Path, _env: pytest.MonkeyPatch
) -> None:
    secret = folder / "secret"
    secret.write_text("a passphrase of many words, or a key")
    secret.chmod(0o600)
    rows = "a\n" + "".join(f"{os.urandom(300).hex()}\n" for _ in range(5000))
    for name in ("security.key_file", "security.passphrase_file"):
        node = opened({name: str(secret), "security.plain_bytes": 1 << 20})
        assert node.client.get("/api/stats").json()["storage"]["encryption"] == "unlocked"
        node.upload("small.csv", b"a\n1\n", options='{"encrypt": true}')
        answer = node.client.post("/api/query", json={"sql": "SELECT a FROM small"})
        assert answer.json()["rows"] == [[1]]
        node.upload("large.csv", rows.encode(), options='{"encrypt": true}')
        refused = node.client.post("/api/query", json={"sql": "SELECT count(*) FROM large"})
        assert refused.status_code == 507, refused.text
        assert node.client.get("/files/small/head/0.parquet").status_code == 403
    node = opened({})
    assert node.client.get("/api/stats").json()["storage"]["encryption"] == "locked"


@effect_of("security.encrypt")
def new_datasets_are_encrypted(
    opened: OpenNodes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = folder / "secret"
    secret.write_text("a passphrase of many words")
    secret.chmod(0o600)
    node = opened({"security.encrypt": True, "security.passphrase_file": str(secret)})
    node.upload("t.csv", b"a\n1\n")
    node.upload("clear.csv", b"a\n1\n", options='{"encrypt": false}')
    node.client.post("/api/query", json={"sql": "CREATE TABLE u AS SELECT 1 AS a"})
    found = {each["name"]: each["encrypted"] for each in node.client.get("/api/datasets").json()}
    assert found == {"t": True, "clear": False, "u": True}
    monkeypatch.setenv("SENNIT_SECURITY__ENCRYPT", "true")
    with pytest.raises(UsageError, match="needs a key"):
        load(folder, {})


@effect_of("security.encrypt_node_key")
def the_key_of_the_node_is_encrypted(
    opened: OpenNodes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = folder / "secret"
    secret.write_text("a passphrase of many words")
    secret.chmod(0o600)
    lake = opened({}).node.lake.folder / "lake"
    assert (lake / "node.key").exists()
    node = opened({"security.encrypt_node_key": True, "security.passphrase_file": str(secret)})
    lake = node.node.lake.folder / "lake"
    assert not (lake / "node.key").exists()
    assert "node:key" in json.loads((lake / "keys.json").read_text())["keys"]
    monkeypatch.setenv("SENNIT_SECURITY__ENCRYPT_NODE_KEY", "true")
    with pytest.raises(UsageError, match="needs a key"):
        load(folder, {})


@effect_of("storage.upload_bytes_max")
def larger_uploads_are_refused(opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch) -> None:
    node = opened({"storage.upload_bytes_max": 1000, "storage.part_bytes": 600})
    for refused in every_upload(node, b"a\n" + b"1\n" * 500):
        assert refused.status_code == 413, refused.text
        assert refused.json()["details"]["limitBytes"] == 1000
        assert "upload_bytes_max" in refused.json()["hint"]
    assert node.client.get("/api/datasets").json() == []
    for accepted in every_upload(node, b"a\n" + b"1\n" * 499):
        assert accepted.status_code == 200, accepted.text


def every_upload(node: OpenNode, body: bytes) -> list[httpx.Response]:
    """The answers to a file that is sent in each way there is; each as a dataset of its own."""
    post, name = node.client.post, f"{len(body)}-bytes"
    form = {"file": (f"{name}-form.csv", body)}
    declared = post("/api/start-upload", json={"name": "declared.csv", "size": len(body)})
    answers = [
        post("/api/upload", params={"name": f"{name}-raw.csv"}, content=body),
        post("/api/upload", params={"name": f"{name}-chunks.csv"}, content=iter([body])),
        post("/api/upload", files=form),
        declared,
    ]
    for chunked in (False, True):
        started = post("/api/start-upload", json={"name": f"{name}-{chunked}.csv"}).json()
        pieces = [body[:600], body[600:]]
        parts = f"/api/uploads/{started['uploadId']}/parts"
        for index in (1, 0):
            content: Any = iter([pieces[index]]) if chunked else pieces[index]
            sent = node.client.put(f"{parts}/{index}", content=content)
            if index == 1:
                answers.append(sent)
    started = post("/api/start-upload", json={"name": f"{name}-fields.csv"}).json()
    fields_ = {"uploadId": started["uploadId"], "index": "1"}
    answers.append(post("/api/upload-chunk", data=fields_, files={"file": ("x", body[600:])}))
    return answers


@effect_of("analytics.query_seconds")
def a_long_query_is_stopped(opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch) -> None:
    node = opened({"analytics.query_seconds": 0.5})
    query = "select sum(a.range * b.range) from range(10000000) a, range(10000000) b"
    stopped = node.client.post("/api/query", json={"sql": query})
    assert (stopped.status_code, stopped.json()["code"]) == (504, "deadline-exceeded")


@effect_of("analytics.json_rows_max")
def a_json_answer_ends_at_so_many_rows(
    opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch
) -> None:
    node = opened({"analytics.json_rows_max": 3})
    for count, rows, truncated in ((3, 3, False), (4, 3, True)):
        query = {"sql": f"select * from range({count})"}
        answer = node.client.post("/api/query", json=query).json()
        assert (len(answer["rows"]), answer["truncated"]) == (rows, truncated)


@effect_of("analytics.cache_bytes")
def a_repeated_query_is_answered_from_memory(
    opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch
) -> None:
    for cache_bytes, seen in ((1 << 20, ["miss", "hit"]), (0, ["bypass", "bypass"])):
        node = opened({"analytics.cache_bytes": cache_bytes})
        answers = [node.client.post("/api/query", json={"sql": "select 1"}) for _ in seen]
        assert [answer.headers["Sennit-Cache"] for answer in answers] == seen


@effect_of("analytics.queue_max")
def one_query_more_than_the_queue_holds_is_refused(
    opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch
) -> None:
    assert "1 requests wait" in _refusal_of_a_full_queue(opened({"analytics.queue_max": 1}))


@effect_of("analytics.user_queue_max")
def one_query_more_than_a_user_may_queue_is_refused(
    opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch
) -> None:
    refusal = _refusal_of_a_full_queue(opened({"analytics.user_queue_max": 1}))
    assert "1 requests of the same user wait" in refusal


def _refusal_of_a_full_queue(node: OpenNode) -> str:
    """Keep the one executor busy, fill the queue of one place, and ask once more."""
    query = {"sql": "select sum(a.range * b.range) from range(10000000) a, range(10000000) b"}

    def ask() -> httpx.Response:
        return node.client.post("/api/query", json={**query, "deadlineSeconds": 3})

    with ThreadPoolExecutor(3) as threads:
        answers = [threads.submit(ask) for _ in range(3)]
    refused = [each.result() for each in answers if each.result().status_code == 429]
    assert [each.json()["code"] for each in refused] == ["busy"]
    assert refused[0].headers["retry-after"] == "1"
    error: str = refused[0].json()["error"]
    return error


@effect_of("security.body_bytes_max")
def larger_bodies_are_refused(opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch) -> None:
    node = opened({"security.body_bytes_max": 4096})
    for size, statuses in ((5000, {413}), (3000, {200, 201})):
        text = "x" * size
        query = node.client.post("/api/query", json={"sql": f"select '{text}'"})
        written = node.client.put("/text.json", json=text)
        assert {query.status_code, written.status_code} <= statuses


@pytest.mark.slow
def test_bodies_of_the_default_size_are_accepted(plain: OpenNode) -> None:
    assert plain.client.put("/text.json", json="x" * 5_000_000).status_code == 200


def logged(folder: Path, **settings: object) -> str:
    """Log 200 lines and a warning with these settings; return what the terminal got."""
    program = (
        "import sys, json, logging, pathlib\n"
        "from sennit.logs import configure\nfrom sennit.settings import LoggingSettings\n"
        "configure(LoggingSettings(**json.loads(sys.argv[1])), pathlib.Path(sys.argv[2]))\n"
        "for i in range(200): logging.getLogger('a').info('line %d', i)\n"
        "logging.getLogger('a').warning('careful')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(settings), str(folder)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stderr


@effect_of("logging.folder")
def logs_are_in_the_folder(
    _opened: OpenNodes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, logs = folder / "node", folder / "logs"
    monkeypatch.setenv("SENNIT_LOGGING__FOLDER", str(logs))
    with running_node(data, "--api-only", "--no-flight") as node:
        query = {"sql": "SELECT 42 AS answer"}
        httpx.post(f"{node.url}/api/query", json=query, headers=node.headers).raise_for_status()
        (first, *_) = httpx.get(f"{node.url}/api/audit", headers=node.headers).json()
        assert "SELECT 42" in json.dumps(first)
    assert not (data / "logs").exists()
    assert stat.S_IMODE(logs.stat().st_mode) == 0o700
    assert "SELECT 42" in platform("logs", "--which", "audit", data=data).stdout
    monkeypatch.setenv("SENNIT_LOGGING__FOLDER", "logs")
    with pytest.raises(UsageError, match="depends on where"):
        load(folder, {})


@effect_of("logging.level")
def only_lines_of_the_level_are_written(
    _opened: OpenNodes, folder: Path, _env: pytest.MonkeyPatch
) -> None:
    logged(folder, level="WARNING")
    assert len((folder / "system.log").read_text().splitlines()) == 1


@effect_of("logging.format")
def the_terminal_gets_json(_opened: OpenNodes, folder: Path, _env: pytest.MonkeyPatch) -> None:
    assert json.loads(logged(folder, format="json"))["message"] == "careful"
    assert logged(folder, format="text").rstrip().endswith("a: careful")


@effect_of("logging.rotate_bytes", "logging.rotate_count")
def logs_are_rotated(_opened: OpenNodes, folder: Path, _env: pytest.MonkeyPatch) -> None:
    logged(folder, rotate_bytes=2048, rotate_count=2)
    found = sorted(path.name for path in folder.iterdir())
    assert found == ["system.log", "system.log.1", "system.log.2"]
    assert all(path.stat().st_size <= 2048 for path in folder.iterdir())


@effect_of("emsqrt.memory_bytes", "emsqrt.executors")
def memory_is_split_over_executors(
    opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch
) -> None:
    node = opened({"emsqrt.memory_bytes": "2GiB", "emsqrt.executors": 3})
    shares = node.client.get("/api/stats").json()["memory"]["shares"]
    assert (shares["totalBytes"], shares["executors"]) == (2 << 30, 3)
    assert shares["gatewayBytes"] + 3 * shares["executorBytes"] <= 2 << 30


@effect_of("elkyn.namespaces")
def trees_of_these_names_exist(opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch) -> None:
    node = opened({"elkyn.namespaces": ["one", "two"]})
    assert node.client.put("/a.json?ns=two", json=1).status_code == 200
    assert node.client.put("/a.json?ns=three", json=1).status_code == 404


@effect_of("elkyn.keep_alive_seconds")
def silent_streams_are_kept_alive(
    opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch
) -> None:
    node = opened({"elkyn.keep_alive_seconds": 0.2})
    headers = {"accept": "text/event-stream"}
    with node.client.stream("GET", "/a.json", headers=headers, timeout=15) as stream:
        assert "event: keep-alive" in stream.iter_lines()


@pytest.mark.nightly
def test_flags_environment_and_file_all_reach_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text('[network]\nallowed_hosts = ["lake.example"]\n')
    monkeypatch.setenv("SENNIT_STORAGE__PART_BYTES", "2MiB")
    monkeypatch.setenv("SENNIT_STORAGE__KEEP_SOURCE", "true")
    (tmp_path / "a.csv").write_text("a\n1\n")
    with running_node(tmp_path, "--api-only", "--memory", "700MiB") as node:
        headers = node.headers | {"host": "lake.example"}
        with httpx.Client(base_url=node.url, headers=headers) as client:
            stats = client.get("/api/stats").json()
            started = client.post("/api/start-upload", json={"name": "b.csv"}).json()
            platform("put", str(tmp_path / "a.csv"), data=tmp_path)
            snapshot = client.get("/api/datasets/a/snapshots/head").json()
    assert stats["memory"]["capBytes"] == 700 << 20
    assert started["partBytes"] == 2 << 20
    assert snapshot["shards"][0].get("sourceObject") is not None
