"""What the settings of remote workers do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from opened_node import OpenNode, OpenNodes
from setting_effects import effect_of

from elytra.testing.scripted_worker import Fault, ScriptedWorker
from emsqrt.plan import DatasetRef, Scan

_WAIT_SECONDS = 30.0


def _node(opened: OpenNodes, **settings: object) -> OpenNode:
    node = opened({name.replace("__", "."): value for name, value in settings.items()})
    node.node.lake.append("rows", pa.table({"n": [1, 2, 3]}))
    return node


def _worker(node: OpenNode, fault: Fault | None = None) -> ScriptedWorker:
    return ScriptedWorker(node.url, node.node.tokens.issue("worker", "worker"), fault=fault)


def _started(node: OpenNode) -> str:
    return node.node.jobs.submit(Scan(DatasetRef("rows")), engine="browser").id


def _until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@effect_of("workers.trust", "workers.sample_percent")
def wrong_rows_are_noticed_in_a_sample(
    opened: OpenNodes, _folder: Path, _monkeypatch: pytest.MonkeyPatch
) -> None:
    for trust, percent, noticed in (("sample", 100, 1), ("sample", 0, 0), ("trust", 100, 0)):
        node = _node(opened, workers__trust=trust, workers__sample_percent=percent)
        with _worker(node, "wrong-rows") as worker:
            worker.wait()
            job = _started(node)
            _until(lambda job=job, node=node: node.node.jobs.get(job).state == "done")  # type: ignore[misc]
            assert len(node.node.jobs.remote.excluded()) == noticed
            answered = node.client.get(f"/api/jobs/{job}/result").json()
            assert answered["rows"][0] == ([1] if noticed else [2])


@effect_of("workers.lease_seconds")
def a_silent_worker_is_given_up(
    opened: OpenNodes, _folder: Path, _monkeypatch: pytest.MonkeyPatch
) -> None:
    node = _node(opened, workers__lease_seconds=1)
    with _worker(node, "stall") as silent:
        silent.wait()
        _started(node)
        _until(lambda: silent.close_code == 4408)


@effect_of("workers.input_bytes")
def inputs_stay_for_later_tasks(
    opened: OpenNodes, _folder: Path, _monkeypatch: pytest.MonkeyPatch
) -> None:
    for size, files in ((0, 0), (1 << 20, 1)):
        node = _node(opened, workers__input_bytes=size)
        with _worker(node) as worker:
            worker.wait()
            job = _started(node)
            _until(lambda job=job, node=node: node.node.jobs.get(job).state == "done")  # type: ignore[misc]
            folder = node.node.lake.folder / "remote" / "inputs"
            _until(lambda files=files, folder=folder: len(list(folder.iterdir())) == files)  # type: ignore[misc]
