"""One node: owns the stores, executors and services of a data folder.

with Node.open(data, settings) as node:      # everything closes in reverse order
    serve(create_app(node))
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from elkyn import ElkynStore, Stores, open_namespaces
from elkyn.records import SYSTEM_NAMESPACE, Table, write_changes
from elytra.backends.peer_tasks import PeerTasks
from elytra.backends.ray import RayBackend, RayOptions
from elytra.backends.remote.backend import RemoteBackend, RemoteOptions
from elytra.backends.remote.sessions import RemoteLimits, SessionInfo
from elytra.backends.table import BACKENDS, OpenBackend
from elytra.functions.step import FunctionLimits
from elytra.service.job_service import JobService
from emsqrt.executor import ExecutorPool
from lake import Lake, QueryLimits
from lake.maintenance.retention_rules import RetentionRule
from lake.objects.reserve import Reserve
from lake.peers.copies.bandwidth import Hours
from lake.peers.copies.copies import CopyOptions
from lake.peers.data import data_parts
from lake.peers.lake_connection import connect
from lake.peers.service import PeerOptions, PeerService
from lake.peers.transport.identity import Identity
from sennit.auth import Tokens, admin_token
from sennit.run_file import sole_owner
from sennit.settings import (
    ElytraSettings,
    MemoryShares,
    Settings,
    node_name,
    peer_port,
)
from sennit_core.clock import SYSTEM
from sennit_core.logs import get_logger
from sennit_core.private_files import claim_folder
from sennit_core.records import NodeInfo, WorkerInfo

_log = get_logger(__name__)

SECRETS_FOLDER = ".secrets"  # not a valid namespace name, so no API path reaches it


@dataclass(slots=True)
class Node:
    """The services that the routes use; built by `Node.open`, which also closes them."""

    data: Path
    settings: Settings
    shares: MemoryShares
    node_id: str
    version: str
    stores: Stores
    nodes: Table[NodeInfo]
    workers: Table[WorkerInfo]
    pool: ExecutorPool
    lake: Lake
    peers: PeerService
    jobs: JobService
    tokens: Tokens
    started_at: float = field(default_factory=time.time)
    # Set while Flight SQL is served, which starts and ends within the node.
    flight_url: str | None = None

    @classmethod
    @contextmanager
    def open(cls, data: Path, settings: Settings) -> Iterator[Node]:
        """Open the data folder exclusively for this process and start its services.

        Raises:
            Conflict: another node serves the folder.
            Denied: the folder belongs to another account.
        """
        shares = MemoryShares.of(settings.emsqrt)
        with ExitStack() as owned:
            # First, before anything is read or written: two nodes would corrupt each other's files.
            owned.enter_context(sole_owner(data))
            # Opening stores and publishing the address write to disk, which may be full: the
            # reserve is released for that, and allocated again when the node is up.
            reserve = Reserve(data)
            reserve.release()
            for message in claim_folder(data).messages:
                _log.warning("%s", message)
            token = admin_token(data)
            # What is opened later uses what was opened before, and `owned` closes in reverse:
            #     lock <- stores <- secrets <- pool <- lake <- peers <- jobs
            stores = owned.enter_context(open_namespaces(data / "elkyn"))
            for namespace in settings.elkyn.namespaces:
                stores[namespace].get("/")  # created now, so that the tree's access check finds it
            secrets = owned.enter_context(ElkynStore(data / "elkyn" / SECRETS_FOLDER))
            pool = owned.enter_context(
                ExecutorPool(
                    shares.executors,
                    memory_bytes=shares.executor_bytes * shares.executors,
                    spill_dir=data / "spill",
                    # Keep capacity for short queries next to long ones: see docs/limits.md.
                    reserved=1 if shares.executors > 1 else 0,
                    queue_limit=settings.analytics.queue_max,
                    user_queue_limit=settings.analytics.user_queue_max,
                )
            )
            tree = stores[SYSTEM_NAMESPACE]
            lake = owned.enter_context(_open_lake(data, settings, tree, pool, reserve))
            peers = owned.enter_context(_open_peers(settings, lake))
            connect(lake, peers)
            jobs = JobService(
                tree, lake, pool, folder=data / "jobs", workers=shares.executors,
                backends=_backends(settings), functions=_functions(settings.elytra),
                javascript=settings.elytra.allow_javascript,
            )  # fmt: skip
            owned.callback(jobs.close)
            tokens = Tokens(token, secrets)
            lake.queued.find_role = tokens.role_of
            node = cls(
                data, settings, shares, peers.identity.id, version("sennit"),
                stores, Table(tree, "/nodes", NodeInfo), Table(tree, "/workers", WorkerInfo),
                pool, lake, peers, jobs, tokens,
            )  # fmt: skip
            node.announce("up")
            jobs.remote.observe(node.show_worker)
            jobs.recover()
            if peers.was_lost:
                # Others trust what it says of its copies, and its disk may have been changed.
                lake.maintenance.request("scrub")
            yield node
            # Only after a regular end: after a crash the rows say "up" until the next start.
            node.announce("down")

    def prepare_executors(self) -> None:
        """Start executors for queries, and for ingests and pipelines, before the first of them."""
        self.pool.prepare(("lake.sql",), ("lake.ingest", "lake.plan"))

    def announce(self, state: str) -> None:
        """Publish the rows of this node and its workers in the `sys` tree."""
        network = self.settings.network
        row = NodeInfo(
            id=self.node_id,
            addresses=(f"{network.host}:{network.port}",),
            zone=network.zone or None,
            capacity=self.shares.total_bytes,
            used=0,
            state=state,
            last_seen=SYSTEM.now(),
        )
        workers = {w.id: w for w in self._workers(state)}
        # A change to None removes a row: of an earlier run with more executors, or of one whose node
        # id was random, as in versions before that of networks.
        write_changes(
            self.stores[SYSTEM_NAMESPACE],
            self.nodes.change(self.node_id, row),
            *[
                self.workers.change(worker, workers.get(worker))
                for worker in {*self.workers.ids(), *workers}
            ],
            ephemeral=True,
        )

    def _workers(self, state: str) -> list[WorkerInfo]:
        engine = version("sennit-emsqrt")
        return [
            WorkerInfo(f"{self.node_id}-{index}", "local", self.node_id, 1, engine, state)
            for index in range(self.shares.executors)
        ]

    def show_worker(self, worker: str, info: SessionInfo | None) -> None:
        """Publish the row of a remote worker; None removes it."""
        row = None
        if info is not None:
            engine = info.engine.rpartition(" ")[2]
            row = WorkerInfo(
                worker, RemoteBackend.name, self.node_id, info.threads, engine, info.state
            )
        change = self.workers.change(worker, row)
        write_changes(self.stores[SYSTEM_NAMESPACE], change, ephemeral=True)

    def stats(self) -> dict[str, Any]:
        """Return the body of /api/stats: memory limits and usage, executors, uptime."""
        pool = self.pool.stats()
        executors = [{"pid": pid, "memoryBytes": charged_bytes(pid)} for pid in pool.pids]
        gateway_bytes = charged_bytes()
        return {
            "nodeId": self.node_id,
            "version": self.version,
            "uptimeSeconds": time.time() - self.started_at,
            "memory": {
                "capBytes": self.shares.total_bytes,
                "usedBytes": gateway_bytes + sum(row["memoryBytes"] for row in executors),
                "gatewayBytes": gateway_bytes,
                "shares": self.shares.to_json(),
            },
            "executors": executors,
            "busy": pool.busy,
            "waiting": pool.waiting,
            "datasets": self.lake.catalog.count(),
            "flight": self.flight_url,
            "storage": self.lake.storage.status(),
        }


def _open_lake(
    data: Path, settings: Settings, tree: ElkynStore, pool: ExecutorPool, reserve: Reserve
) -> Lake:
    storage, security = settings.storage, settings.security
    return Lake(
        data,
        tree=tree,
        pool=pool,
        part_bytes=storage.part_bytes,
        upload_bytes_max=storage.upload_bytes_max,
        keep_source=storage.keep_source,
        reserve=reserve,
        query_limits=QueryLimits(
            seconds=settings.analytics.query_seconds,
            json_rows=settings.analytics.json_rows_max,
            engine=settings.analytics.engine,
        ),
        cache_bytes=settings.analytics.cache_bytes,
        verify=storage.verify,
        quota_bytes=storage.quota_bytes or None,
        quota_objects=storage.quota_objects or None,
        reserve_bytes=storage.reserve_bytes,
        grace_seconds=storage.retention_grace_seconds,
        scrub_days=storage.scrub_days,
        scrub_rate_bytes=storage.scrub_rate_bytes,
        compact_seconds=storage.compact_hours * 3600.0,
        statistics_seconds=storage.statistics_hours * 3600.0,
        expire_seconds=storage.expire_hours * 3600.0,
        sweep_seconds=storage.sweep_hours * 3600.0,
        cleanup_seconds=storage.cleanup_hours * 3600.0,
        unused_seconds=storage.cleanup_days * 86_400.0,
        cleanup_bytes=storage.cleanup_bytes,
        trash_seconds=storage.trash_days * 86_400.0,
        upload_seconds=storage.upload_hours * 3600.0,
        upload_sync=storage.upload_sync,
        retention=RetentionRule(storage.retention_keep, storage.retention_days * 86_400.0),
        encrypt=security.encrypt,
        encrypt_node_key=security.encrypt_node_key,
        key_file=security.key_file,
        passphrase_file=security.passphrase_file,
        plain_bytes=security.plain_bytes,
    )


def _backends(settings: Settings) -> Mapping[str, OpenBackend]:
    workers, ray = settings.workers, ray_options(settings.elytra)
    options = RemoteOptions(
        trust=workers.trust,
        sample_share=workers.sample_percent / 100,
        input_bytes=workers.input_bytes,
        limits=RemoteLimits(lease_seconds=workers.lease_seconds),
    )
    backends: dict[str, OpenBackend] = dict(BACKENDS)
    backends[RemoteBackend.name] = partial(RemoteBackend, options=options)
    if ray is not None:
        backends[RayBackend.name] = partial(RayBackend, options=ray)
    return backends


def _functions(settings: ElytraSettings) -> FunctionLimits | None:
    if not settings.allow_python:
        return None
    return FunctionLimits(settings.python_bytes, settings.python_seconds)


def _open_peers(settings: Settings, lake: Lake) -> PeerService:
    network = settings.network
    options = PeerOptions(
        node_name(network),
        host=(network.peer_host or network.host) if network.peer_listen else None,
        port=peer_port(network),
        announce=network.peer_addresses,
        bootstrap=network.peers,
        discovery=network.discovery,
        zone=network.zone,
        capacity=settings.storage.copy_bytes,
        replication=settings.storage.replication,
        query_bytes=network.query_bytes,
    )
    identity = Identity(lake.storage.node_key)
    copies = CopyOptions(
        bytes_per_second=network.copy_rate_bytes, hours=Hours.parse(network.copy_hours)
    )
    data = data_parts(lake, copies, network.change_bytes, tasks=PeerTasks(lake))
    return PeerService(identity, lake.tree, options, duckdb=version("duckdb"), data=data)


def ray_options(settings: ElytraSettings) -> RayOptions | None:
    """Return the Ray cluster that a node uses; None if it uses none."""
    if not settings.ray:
        return None
    return RayOptions(settings.ray, settings.ray_workers, settings.ray_worker_bytes)


def charged_bytes(pid: int | str = "self") -> int:
    """Return a process's anonymous and shared memory, counted by the kernel (proc(5): status)."""
    total = 0
    try:
        with Path(f"/proc/{pid}/status").open(encoding="ascii", errors="replace") as status:
            for line in status:
                # Not RssFile: the kernel can drop pages of files when memory is short.
                if line.startswith(("RssAnon:", "RssShmem:")):
                    total += int(line.split()[1]) << 10
    except OSError:
        # An executor may end at any time between the list of processes and this look.
        return 0
    return total
