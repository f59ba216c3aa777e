"""The sections of a node's settings, and what follows from them; `settings_loading` loads them."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from sennit.data_folder import default_data
from sennit_core.errors import UsageError
from sennit_core.units import GIB, MIB

__all__ = [
    "GATEWAY_PORT",
    "PORT_STEP",
    "MemoryShares",
    "NetworkSettings",
    "Settings",
    "default_data",
    "flight_port",
    "is_loopback",
    "node_name",
    "peer_port",
    "with_port",
]

GATEWAY_PORT = 8600
FLIGHT_STEP = 2  # the port of Flight SQL after the gateway's: 8602 by default
PEER_STEP = 1  # the port for peers after the gateway's: 8601 by default
PORT_STEP = 10  # `--nodes N`: node i listens on the base port + 10·i
EXECUTORS = 2
_NAME_MAX = 63
_GATEWAY_SHARE_BYTES = 192 * MIB
_MEMORY_MIN_BYTES = 512 * MIB
_MEMORY_MAX_DEFAULT_BYTES = 4 * GIB


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """The gateway's address, and the hosts and web origins that it accepts.

    `allowed_origins` are web pages of other origins that may use the API (CORS). `flight` serves
    Flight SQL on the same host; its port is two above the gateway's if it is None. `name` and `zone`
    are what other nodes of a network call this one and the failure domain that it is in. Once it is in
    a network it listens for them on `peer_host`, the gateway's host if it is empty, and `peer_port`, one
    above the gateway's if it is None; or only connects to them if `peer_listen` is false.
    `peer_addresses` are where they reach it, if that is another address. `peers` are addresses of
    members, which are tried when none is reached where it was. `discovery` announces the node on its
    local networks, and lists the nodes that are announced there. Copies of shared datasets
    are received and sent with at most `copy_rate_bytes` in a second each (0: no limit), and only
    in `copy_hours`, if any, such as "22:00-06:00"; what a query waits for comes at once. Other nodes
    send at most `query_bytes` for one query (0: no limit). A change of a dataset that another node writes
    sends rows of at most `change_bytes`, and brings no more to this one.
    """

    host: str = "127.0.0.1"
    port: int = GATEWAY_PORT
    insecure: bool = False
    tls_certificate: str | None = None
    tls_key: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    flight: bool = True
    flight_port: int | None = None
    name: str = ""
    zone: str = ""
    peer_listen: bool = True
    peer_host: str = ""
    peer_port: int | None = None
    peer_addresses: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    discovery: bool = False
    copy_rate_bytes: int = 0
    copy_hours: str = ""
    query_bytes: int = 16 * GIB
    change_bytes: int = GIB


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """How uploads are received and stored. Sizes in bytes.

    `keep_source` keeps a copy of each uploaded file; an upload's option `keepSource` overrides it.
    `verify` says when stored bytes are compared with their hashes: at the first read in each process
    and when a file has changed, or always, at every read (docs/damage.md). `quota_bytes` and
    `quota_objects` limit all stored objects together (0: no limit); `reserve_bytes` of the disk stay
    free for metadata and deletions (docs/limits.md). `retention_grace_seconds` is how long objects
    stay that maintenance has taken out of use; DROP and deletions do not wait. All stored bytes are
    verified about every `scrub_days` (0: never), at most `scrub_rate_bytes` in a second. Every
    `compact_hours`, `statistics_hours`, `expire_hours` and `sweep_hours` (0: never) small shards are
    compacted, shards without statistics get them, old versions expire, and objects that nothing
    references are deleted (docs/maintenance.md). Versions
    expire of datasets with a rule, and of the others if `retention_keep` is not 0: those beyond the
    newest `retention_keep` that were replaced over `retention_days` ago. Every `cleanup_hours` (0:
    never) datasets that were not used for `cleanup_days` (0: none) move to the trash, as do the least
    recently used ones while all have more than `cleanup_bytes` (0: no limit); they can be restored for
    `trash_days`. Incomplete uploads go `upload_hours` after their last part. A
    part of an upload is durable when it is answered, or within a second if `upload_sync` is `interval`.
    `copy_bytes` of the disk are
    offered for copies of datasets that other nodes share (0: it holds none); `replication` nodes hold
    each shard of a dataset that is shared without a number of copies.
    """

    part_bytes: int = 16 * MIB
    keep_source: bool = False
    upload_bytes_max: int = 1024 * GIB
    verify: Literal["open", "always"] = "open"
    quota_bytes: int = 0
    quota_objects: int = 0
    reserve_bytes: int = 64 * MIB
    retention_grace_seconds: float = 24 * 3600.0
    scrub_days: float = 30.0
    scrub_rate_bytes: int = 32 * MIB
    compact_hours: float = 1.0
    statistics_hours: float = 24.0
    expire_hours: float = 1.0
    retention_keep: int = 0
    retention_days: float = 0.0
    sweep_hours: float = 24.0
    cleanup_hours: float = 1.0
    cleanup_days: float = 0.0
    cleanup_bytes: int = 0
    trash_days: float = 7.0
    upload_hours: float = 24.0
    upload_sync: Literal["always", "interval"] = "always"
    copy_bytes: int = 16 * GIB
    replication: int = 1


@dataclass(frozen=True, slots=True)
class AnalyticsSettings:
    """Limits of queries, and the memory for their results.

    Attributes:
        engine: engine of queries over HTTP that name none.
        query_seconds: time limit of a query, including waiting and sending.
        json_rows_max: row limit of a JSON result whose request does not set `maxRows`.
        queue_max: maximum requests of all users in the queue for an executor.
        user_queue_max: maximum queued requests of one user.
        cache_bytes: memory of the gateway for results of repeated queries; 0 keeps none.
    """

    engine: Literal["auto", "duckdb", "emsqrt"] = "auto"
    query_seconds: float = 300.0
    json_rows_max: int = 10_000
    queue_max: int = 256
    user_queue_max: int = 64
    cache_bytes: int = 32 * MIB


@dataclass(frozen=True, slots=True)
class SecuritySettings:
    """Size limits of request bodies and of socket messages, and the key of encrypted datasets.

    `encrypt` encrypts new datasets, unless their creator says that they are not to be, and
    `encrypt_node_key` the key that is the node's identity. `key_file` or `passphrase_file` unlocks both;
    `plain_bytes` of memory hold what is decrypted of datasets (docs/encryption.md).
    """

    body_bytes_max: int = 16 * MIB
    encrypt: bool = False
    encrypt_node_key: bool = False
    key_file: Path | None = None
    passphrase_file: Path | None = None
    plain_bytes: int = 512 * MIB


@dataclass(frozen=True, slots=True)
class LoggingSettings:
    """Logging; the files are in `folder`, by default `logs/` of the data folder, and rotate."""

    folder: Path | None = None
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["text", "json"] = "text"
    rotate_bytes: int = 10 * MIB
    rotate_count: int = 3


@dataclass(frozen=True, slots=True)
class EmsqrtSettings:
    """The number of executors, and the memory limit of the whole node (0: chosen automatically)."""

    memory_bytes: int = 0
    executors: int = EXECUTORS


@dataclass(frozen=True, slots=True)
class ElkynSettings:
    """The realtime tree: namespaces in addition to `sys`, seconds between keep-alives."""

    namespaces: tuple[str, ...] = ("default",)
    keep_alive_seconds: float = 25.0


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Remote workers (docs/workers.md).

    `trust` says how their results are checked: `sample` runs `sample_percent` of the tasks on the node
    too, and compares the rows; `trust` checks the form alone. `input_bytes` of the disk keep inputs that
    were sent, for later tasks. An attempt that sends no progress for `lease_seconds` is given to others.
    """

    trust: Literal["trust", "sample"] = "sample"
    sample_percent: float = 5.0
    input_bytes: int = GIB
    lease_seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class ElytraSettings:
    """Where jobs may run besides the executors.

    `ray` is "auto", or the HOST:PORT of a Ray cluster's head; no cluster if it is empty. On each of its
    machines the node keeps `ray_workers` workers (one per CPU that Ray has there if it is None), with a
    memory cap of `ray_worker_bytes` each, which is not part of the node's memory (docs/ray.md).

    With `allow_python` plans of admins may have Python functions, which run in confined processes of their
    own: of at most `python_bytes` each, which is not part of the node's memory, and `python_seconds` a task.
    With `allow_javascript` they may have JavaScript functions, which the node sends to remote workers whose
    owners run them, and never runs itself.
    """

    ray: str = ""
    ray_workers: int | None = None
    ray_worker_bytes: int = 512 * MIB
    allow_python: bool = False
    python_bytes: int = 256 * MIB
    python_seconds: float = 600.0
    allow_javascript: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """All sections of a node's configuration."""

    network: NetworkSettings = field(default_factory=NetworkSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    analytics: AnalyticsSettings = field(default_factory=AnalyticsSettings)
    security: SecuritySettings = field(default_factory=SecuritySettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)
    emsqrt: EmsqrtSettings = field(default_factory=EmsqrtSettings)
    elkyn: ElkynSettings = field(default_factory=ElkynSettings)
    workers: WorkerSettings = field(default_factory=WorkerSettings)
    elytra: ElytraSettings = field(default_factory=ElytraSettings)


@dataclass(frozen=True, slots=True)
class MemoryShares:
    """How `--memory` is divided between the processes, in bytes; the shares are fixed."""

    total_bytes: int
    gateway_bytes: int
    executor_bytes: int
    executors: int

    @classmethod
    def of(cls, settings: EmsqrtSettings) -> MemoryShares:
        """Divide the memory: a fixed share for the gateway, the rest evenly over the executors."""
        total = settings.memory_bytes or _sensible_memory()
        if total < _MEMORY_MIN_BYTES:
            raise UsageError(
                f"--memory {total / MIB:.0f} MiB is too little for a node",
                hint=f"use at least {_MEMORY_MIN_BYTES // MIB} MiB",
            )
        if total > _ram_bytes():
            raise UsageError(
                f"--memory {total / GIB:.1f} GiB is more than this machine has",
                hint=f"it has {_ram_bytes() / GIB:.1f} GiB; leave some for the system",
            )
        executor_bytes = (total - _GATEWAY_SHARE_BYTES) // settings.executors
        return cls(total, _GATEWAY_SHARE_BYTES, executor_bytes, settings.executors)

    def to_json(self) -> dict[str, int]:
        """Return the shares in the form of /api/stats."""
        return {
            "totalBytes": self.total_bytes,
            "gatewayBytes": self.gateway_bytes,
            "executorBytes": self.executor_bytes,
            "executors": self.executors,
        }


def with_port(settings: Settings, port: int) -> Settings:
    """Return the settings with another port."""
    # The port for peers follows the port that was set: any free one after a gateway's port of 0.
    peers = peer_port(settings.network)
    return replace(settings, network=replace(settings.network, port=port, peer_port=peers))


def flight_port(network: NetworkSettings) -> int:
    """Return the port for Flight SQL; 0, for any free one, if the gateway's is 0."""
    if network.flight_port is not None:
        return network.flight_port
    return network.port and network.port + FLIGHT_STEP


def peer_port(network: NetworkSettings) -> int:
    """Return the port for peers; 0, for any free one, if the gateway's is 0."""
    if network.peer_port is not None:
        return network.peer_port
    return network.port and network.port + PEER_STEP


def node_name(network: NetworkSettings) -> str:
    """Return what other nodes call this one: the setting, else the host's name."""
    name = network.name or re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname()).strip("-")
    return name[:_NAME_MAX] or "node"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to `host`."""
    return host in {"localhost", "::1"} or host.startswith("127.")


def _sensible_memory() -> int:
    """Return a quarter of the machine's RAM, at most 4 GiB and at least a node's minimum."""
    return max(_MEMORY_MIN_BYTES, min(_ram_bytes() // 4, _MEMORY_MAX_DEFAULT_BYTES))


def _ram_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
