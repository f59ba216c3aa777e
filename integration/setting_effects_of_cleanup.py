"""What the settings of the cleanup and of uploads do, seen from outside a node."""

from __future__ import annotations

import os
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from opened_node import OpenNode, OpenNodes
from setting_effects import effect_of

from elytra.client.transport import wait_for
from lake.uploads import sync_queue
from sennit_core.testing import ManualClock

_DAY_SECONDS = 86_400.0


def later(node: OpenNode, seconds: float) -> None:
    """Let the cleanup, and nothing else, see a later time."""
    node.node.lake.cleanup._clock = ManualClock(time.time() + seconds)


def planned(node: OpenNode) -> list[str]:
    return [each["name"] for each in node.client.get("/api/cleanup").json()]


def run_cleanup(node: OpenNode) -> None:
    job = node.client.post("/api/maintenance/cleanup").json()["jobId"]
    wait_for(lambda: node.node.jobs.get(job).state == "done" or None, what=job, seconds=60)


@effect_of("storage.cleanup_days", "storage.trash_days")
def unused_datasets_go_to_the_trash(
    opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"storage.cleanup_hours": 0, "storage.trash_days": 2}
    node = opened(settings | {"storage.cleanup_days": 10})
    node.upload("a.csv", b"n\n1\n")
    later(node, 9 * _DAY_SECONDS)
    assert planned(node) == []
    later(node, 11 * _DAY_SECONDS)
    assert planned(node) == ["a"]
    run_cleanup(node)
    assert node.client.get("/api/datasets").json() == []
    (trashed,) = node.client.get("/api/trash").json()
    assert trashed["until"] - trashed["movedAt"] == 2 * _DAY_SECONDS
    assert node.client.post("/api/trash/a/restore", json={}).status_code == 200
    assert [each["name"] for each in node.client.get("/api/datasets").json()] == ["a"]


@effect_of("storage.cleanup_bytes")
def datasets_beyond_a_limit_go(opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch) -> None:
    for limit, found in ((1, ["a"]), (1 << 30, []), (0, [])):
        node = opened({"storage.cleanup_hours": 0, "storage.cleanup_bytes": limit})
        node.upload("a.csv", b"n\n1\n")
        later(node, 2 * 3600.0)
        assert planned(node) == found


@effect_of("storage.upload_hours")
def incomplete_uploads_expire(opened: OpenNodes, _folder: Path, _env: pytest.MonkeyPatch) -> None:
    node = opened({"storage.upload_hours": 3, "storage.cleanup_hours": 0})
    headers = {"tus-resumable": "1.0.0", "upload-length": "3", "upload-metadata": "filename YQ=="}
    created = node.client.post("/tus/", headers=headers)
    expires = parsedate_to_datetime(created.headers["upload-expires"]).timestamp()
    assert abs(expires - time.time() - 3 * 3600) < 60
    node.node.lake.parts.expire_seconds = 0
    run_cleanup(node)
    place = created.headers["location"]
    assert node.client.head(place, headers={"tus-resumable": "1.0.0"}).status_code == 410


@effect_of("storage.upload_sync")
def parts_are_synced_before_their_answer_or_after(
    opened: OpenNodes, _folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, synced = os.fsync, list[str]()

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(sync_queue, "INTERVAL_SECONDS", 1000.0)
    for mode, at_once in (("always", True), ("interval", False)):
        node = opened({"storage.upload_sync": mode})
        body = {"name": "a.csv", "size": 4}
        upload = node.client.post("/api/start-upload", json=body).json()["uploadId"]
        synced.clear()
        place = f"/api/uploads/{upload}"
        assert node.client.put(f"{place}/parts/0", content=b"n\n1\n").status_code == 200
        assert any(upload in path for path in synced) is at_once
        assert node.client.post(f"{place}/complete").status_code == 200
        assert any(upload in path and ".part" in path for path in synced) is not at_once
