"""What the settings of a Ray cluster do; `test_ray_jobs.py` has what jobs do there."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from opened_node import OpenNodes
from setting_effects import effect_of

from elytra.backends.ray import RayOptions
from nodes import platform
from sennit.node import ray_options
from sennit.settings_loading import load
from sennit_core.errors import UsageError


@effect_of("elytra.ray", "elytra.ray_workers", "elytra.ray_worker_bytes")
def a_cluster_is_looked_for_when_the_node_starts(
    _opened: OpenNodes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ray_options(load(folder, {}).elytra) is None
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("SENNIT_ELYTRA__RAY_WORKERS", "3")
    monkeypatch.setenv("SENNIT_ELYTRA__RAY_WORKER_BYTES", "128MiB")
    monkeypatch.setenv("SENNIT_ELYTRA__RAY", address)
    assert ray_options(load(folder, {}).elytra) == RayOptions(address, 3, 128 << 20)

    refused = platform("up", "--port", "0", "--api-only", data=folder, check=False)
    assert refused.returncode != 0
    assert address in refused.stderr or "sennit-elytra[ray]" in refused.stderr
    monkeypatch.setenv("SENNIT_ELYTRA__RAY", "nowhere")
    with pytest.raises(UsageError, match="--ray"):
        load(folder, {})
