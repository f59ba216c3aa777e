"""The workers of a Ray cluster: actors on each of its machines, replaced when they end.

One thread owns all of this: it waits for Ray's calls, and looks for new machines now and then.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from elytra.backends import Workers
from elytra.backends.attempts import WorkerGone
from elytra.backends.ray.options import RayOptions
from elytra.backends.ray.worker import VERSIONED, RayWorker
from sennit_core.logs import get_logger

__all__ = ["Cluster", "ClusterWorkers"]

_LOOK_SECONDS = 1.0
_THREADS = 16
"""Of an actor: `hold`, one task, and short calls next to it."""
_WORKERS_MAX = 256
_PAUSE_SECONDS_MAX = 30.0
_CLOSE_SECONDS = 2.0
_TOGETHER_SECONDS = 1.0
"""How long the actors of a machine may end one after the other, if it is lost."""
_log = get_logger(__name__)


class ClusterWorkers(Workers, Protocol):
    """Receives which workers a cluster has, with the pids of their processes."""

    def has_pid(self, worker: str, pid: int) -> None:
        """Called before `joined`."""


@dataclass(slots=True)
class _Machine:
    """One node of Ray's.

    Args:
        actors: How many actors it should have.
        pause_seconds: How long to wait before the next replacement: doubled by each actor that never
            became ready, so that a machine where they cannot start costs little.
        not_before: When an actor may be started there, by `time.monotonic`.
    """

    actors: int
    pause_seconds: float = 0.5
    not_before: float = 0.0


@dataclass(slots=True)
class _Actor:
    name: str
    machine: str
    handle: Any
    # The call that is waited for: `about` until it has joined, then `hold`.
    call: Any = None
    joined: bool = False
    tasks: int = 0  # that run on it


@dataclass
class Cluster:
    """The workers of the cluster that this process is connected to.

    Args:
        options: Their limits.
        workers: Receives who joins and leaves.
    """

    options: RayOptions
    workers: ClusterWorkers
    _lock: threading.Lock = field(default_factory=threading.Lock)
    # Guarded by the lock; only the thread of `watch` adds to it.
    _actors: dict[str, _Actor] = field(default_factory=dict)
    # Of `watch` alone.
    _machines: dict[str, _Machine] = field(default_factory=dict)
    _started: int = 0
    _closed: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Start and replace actors until `close` is called; blocks its thread."""
        while not self._closed.is_set():
            self._find_machines()
            self._start_actors()
            with self._lock:
                waiting = {actor.call: actor for actor in self._actors.values()}
            if not waiting:
                self._closed.wait(_LOOK_SECONDS)
                continue
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=_LOOK_SECONDS)
            for call in ready:
                self._on_end(waiting[call], waiting)

    def close(self) -> None:
        """End all actors."""
        self._closed.set()
        with self._lock:
            actors = list(self._actors.values())
        closing = [actor.handle.close.remote() for actor in actors if actor.joined]
        if closing:  # what one leaves behind is removed by the next one on its machine
            ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_SECONDS)
        for actor in actors:
            ray.kill(actor.handle)

    @contextmanager
    def using(self, worker: str) -> Iterator[Any]:
        """Yield the actor of a worker, which counts as busy until the end.

        Raises:
            WorkerGone: It has left.
        """
        with self._lock:
            actor = self._actors.get(worker)
            if actor is None or not actor.joined:
                raise WorkerGone(worker)
            actor.tasks += 1
        try:
            yield actor.handle
        finally:
            with self._lock:
                actor.tasks -= 1

    def joined(self, first: str) -> list[str]:
        """Return the workers that have joined, this one first if it has."""
        with self._lock:
            names = [actor.name for actor in self._actors.values() if actor.joined]
        return sorted(names, key=lambda name: (name != first, name))

    def end(self, worker: str) -> None:
        """End the process of a worker that does not answer, which then leaves; from any thread."""
        with self._lock:
            actor = self._actors.get(worker)
        if actor is not None:
            ray.kill(actor.handle)

    def _find_machines(self) -> None:
        found = {
            node["NodeID"]: node["Resources"]
            for node in ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
        }
        self._machines = {
            machine: self._machines.get(machine) or _Machine(self._count(resources))
            for machine, resources in found.items()
        }
        with self._lock:
            lost = [actor for actor in self._actors.values() if actor.machine not in found]
        self._leave(lost)  # before their calls fail, which can take Ray longer

    def _count(self, resources: dict[str, float]) -> int:
        by_memory = int(resources.get("memory", 0) // self.options.worker_bytes)
        return max(1, min(self.options.workers or int(resources["CPU"]), by_memory))

    def _start_actors(self) -> None:
        with self._lock:
            have = Counter(actor.machine for actor in self._actors.values())
            total = len(self._actors)
        now = time.monotonic()
        for machine, wanted in self._machines.items():
            if now < wanted.not_before:
                continue
            for _ in range(min(wanted.actors - have[machine], _WORKERS_MAX - total)):
                self._start_actor(machine)
                total += 1

    def _start_actor(self, machine: str) -> None:
        self._started += 1
        handle = (
            ray.remote(RayWorker)
            .options(
                num_cpus=1,
                memory=self.options.worker_bytes,
                max_concurrency=_THREADS,
                max_restarts=0,
                # On this machine or not at all: another one has its own.
                scheduling_strategy=NodeAffinitySchedulingStrategy(machine, soft=False),
            )
            .remote(json.dumps(self.options.to_json()))
        )
        # Never the name of an earlier one: outdated reports of that one must not count.
        actor = _Actor(f"{machine[:12]}-{self._started}", machine, handle, handle.about.remote())
        with self._lock:
            self._actors[actor.name] = actor

    def _on_end(self, actor: _Actor, waiting: dict[Any, _Actor]) -> None:
        """Let an actor join whose first call has returned, or let those leave that have ended."""
        try:
            about = json.loads(ray.get(actor.call))
        except RayError as problem:
            _log.warning("worker %s of Ray ended: %s", actor.name, str(problem).splitlines()[0])
            self._pause(actor)
            # If the machine is lost, so are its others: none of them must get the task again.
            near = [call for call, each in waiting.items() if each.machine == actor.machine]
            ended, _ = ray.wait(near, num_returns=len(near), timeout=_TOGETHER_SECONDS)
            self._leave([each for call in ended if (each := waiting[call]).joined or each is actor])
            return
        ours = {name: version(name) for name in VERSIONED}
        if about["versions"] != ours:
            _log.warning("worker %s of Ray has %s, not %s", actor.name, about["versions"], ours)
            self._pause(actor)
            self._leave([actor])
            return
        with self._lock:
            if actor.name not in self._actors:
                return
            actor.call = actor.handle.hold.remote()
            actor.joined = True
        machine = self._machines.get(actor.machine)
        if machine is not None:
            machine.pause_seconds = 0.5
        self.workers.has_pid(actor.name, about["pid"])
        self.workers.joined(actor.name)

    def _pause(self, actor: _Actor) -> None:
        """Start the next actor on a machine later, if this one never joined."""
        machine = self._machines.get(actor.machine)
        if machine is not None and not actor.joined:
            machine.not_before = time.monotonic() + machine.pause_seconds
            machine.pause_seconds = min(machine.pause_seconds * 2, _PAUSE_SECONDS_MAX)

    def _leave(self, actors: Sequence[_Actor]) -> None:
        """Report that actors are gone, the idle ones first: no task is then assigned to one of them."""
        with self._lock:
            left = [actor for actor in actors if self._actors.pop(actor.name, None) is not None]
            left.sort(key=lambda actor: actor.tasks)
        for actor in left:
            if actor.joined:
                self.workers.left(actor.name)
            ray.kill(actor.handle)
