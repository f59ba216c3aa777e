"""A seeded simulation of a network of peers: the same seed gives the same history.

    simulation = Simulation(seed=7, faults=Faults(loss=0.1))
    for name in names:
        simulation.add(name, lambda disk: MyProcess(name, disk))
    simulation.run(60.0)

Processes are the protocol state machines of the product (`lake.peers.transport.machine`). Time is a number; a
message takes the time, and has the fate, that the seed decides. Messages pass through the product's
codec, so what cannot be encoded fails here too. What survives a crash is the disk that a process is
made with.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from lake.peers.copies.have_messages import HaveReply
from lake.peers.transport.machine import TICK_SECONDS, Call, Effect, Failed, Replied, Send
from lake.peers.transport.messages import Message, MessageCodec
from sennit_core.errors import BadInput, SennitError

__all__ = ["Disk", "Faults", "Process", "Simulation"]

Disk = dict[str, Any]
"""What a simulated process stores durably; the process decides what is in it."""


class Process(Protocol):
    """A simulated node: machines, and what performs their own effects."""

    def tick(self, now: float) -> Iterable[Effect]:
        """Let time pass."""
        ...

    def receive(self, peer: str, message: Message, now: float) -> Iterable[Effect]:
        """Handle a message."""
        ...

    def serve(self, peer: str, message: Message, now: float) -> tuple[Message, bytes]:
        """Answer a request; a `SennitError` refuses it."""
        ...

    def settled(self, result: Replied | Failed, now: float) -> Iterable[Effect]:
        """Handle the end of a request."""
        ...


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong in a network, as probabilities of a message.

    Args:
        delay_seconds: The least and greatest delay.
        loss: Of being lost, if it needs no answer.
        call_loss: Of a request or an answer being lost, which leads to a timeout. Sessions repeat
            what the network loses, so it is the loss of a connection, and rarer.
        duplicate: Of arriving twice; not of requests, which sessions number.
        corrupt: Of a flipped byte, which TLS would make a lost connection: the message is lost.
        body_corrupt: Of a wrong byte in the body of an answer, as of a peer with a bad disk.
        clock_skew_seconds: The greatest difference between the clocks of two processes.
    """

    delay_seconds: tuple[float, float] = (0.001, 0.05)
    loss: float = 0.0
    call_loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    body_corrupt: float = 0.0
    clock_skew_seconds: float = 0.0


@dataclass(slots=True)
class _Node:
    make: Callable[[Disk], Process]
    disk: Disk
    skew: float
    process: Process | None
    # Counts starts: what was sent to or scheduled for an earlier one is dropped.
    life: int = 0
    # Requests without an end, by the number of the machine.
    calls: set[int] = field(default_factory=set)


class Simulation:
    """A network of processes in simulated time.

    Args:
        seed: Decides the whole history.
        codec: Of the messages.
        faults: What goes wrong.
        connected: Whether the sender and the receiver of a message keep a connection; asked when it is sent
            and when it arrives. A request without one fails at once.
    """

    def __init__(
        self,
        seed: int,
        codec: MessageCodec,
        faults: Faults | None = None,
        *,
        connected: Callable[[str, str, Message], bool] = lambda _sender, _receiver, _message: True,
    ) -> None:
        self.random = Random(seed)
        self._connected = connected
        self.faults = faults or Faults()
        self.now = 0.0
        self.sent: dict[str, int] = {}
        """Bytes of messages that each process has sent, by its name."""
        self._codec = codec
        self._nodes: dict[str, _Node] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._scheduled = 0
        self._groups: list[frozenset[str]] = []
        self._frozen: set[str] = set()

    def add(self, name: str, make: Callable[[Disk], Process]) -> None:
        """Start a process.

        Args:
            name: Its node id.
            make: Makes the process from its disk, now and after each crash.
        """
        skew = self.faults.clock_skew_seconds
        self._nodes[name] = _Node(make, {}, self.random.uniform(-skew, skew), None)
        self.sent[name] = 0
        self.restart(name)

    def process(self, name: str) -> Any:
        """Return a process that runs."""
        found = self._nodes[name].process
        assert found is not None, f"{name} has crashed"
        return found

    def running(self) -> Iterator[str]:
        """Yield the names of the processes that run."""
        return (name for name, node in self._nodes.items() if node.process is not None)

    def crash(self, name: str) -> None:
        """End a process without warning; its disk stays."""
        node = self._nodes[name]
        node.process = None
        node.life += 1
        node.calls.clear()

    def restart(self, name: str) -> None:
        """Start a process from its disk."""
        node = self._nodes[name]
        assert node.process is None, f"{name} runs"
        node.life += 1
        node.process = node.make(node.disk)
        # Processes tick at different times, as real ones do.
        self._tick(name, node.life, first=self.random.uniform(0, TICK_SECONDS))

    def freeze(self, name: str) -> None:
        """Stop a process as SIGSTOP does: messages to it wait."""
        self._frozen.add(name)

    def thaw(self, name: str) -> None:
        """Let a frozen process continue."""
        self._frozen.discard(name)

    def partition(self, *groups: Iterable[str]) -> None:
        """Let only processes of one group reach each other; without groups, all do."""
        self._groups = [frozenset(group) for group in groups]

    def at(self, seconds: float, action: Callable[[], object]) -> None:
        """Call a function after so many seconds."""

        def run() -> None:
            action()

        self._schedule(seconds, run)

    def run(self, seconds: float) -> None:
        """Let simulated time pass."""
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        self.now = end

    def run_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Let time pass until a condition holds, at most so long; return whether it holds."""
        end = self.now + seconds
        while not condition():
            if self.now >= end:
                return False
            self.run(min(TICK_SECONDS, end - self.now))
        return True

    def perform(self, name: str, effects: Iterable[Effect]) -> None:
        """Perform the effects of a process; those that are not of the network are its own."""
        for effect in effects:
            if self._nodes[name].process is None:  # it has crashed before the rest of them
                return
            match effect:
                case Send(peer, message):
                    self._send(name, peer, message)
                case Call():
                    self._call(name, effect)
                case _:
                    raise AssertionError(f"{name} left an effect to the network: {effect}")

    def clock(self, name: str) -> float:
        """Return the time that a process sees."""
        return self.now + self._nodes[name].skew

    def _schedule(self, seconds: float, action: Callable[[], None]) -> None:
        self._scheduled += 1
        # The number makes the order of equal times that of scheduling, in every run.
        heapq.heappush(self._queue, (self.now + seconds, self._scheduled, action))

    def _tick(self, name: str, life: int, first: float) -> None:
        def run() -> None:
            node = self._nodes[name]
            if node.life != life or node.process is None:
                return
            if name not in self._frozen:
                self.perform(name, node.process.tick(self.clock(name)))
            self._tick(name, life, TICK_SECONDS)

        self._schedule(first, run)

    def _can_reach(self, one: str, other: str) -> bool:
        return not self._groups or any(one in g and other in g for g in self._groups)

    def _fate(self, sender: str, receiver: str, size: int, loss: float) -> float | None:
        """Return the delay of a message, None if it is lost."""
        self.sent[sender] = self.sent.get(sender, 0) + size
        delay = self.random.uniform(*self.faults.delay_seconds)
        lost = self.random.random() < loss + self.faults.corrupt
        if lost or receiver not in self._nodes or not self._can_reach(sender, receiver):
            return None
        return delay

    def _send(self, sender: str, receiver: str, message: Message) -> None:
        if not self._connected(sender, receiver, message):
            return
        frame = self._codec.encode(message)
        copies = 1 + (self.random.random() < self.faults.duplicate)
        for _ in range(copies):
            delay = self._fate(sender, receiver, len(frame), self.faults.loss)
            if delay is not None:
                self._deliver(sender, receiver, frame, delay)

    def _deliver(self, sender: str, receiver: str, frame: bytes, delay: float) -> None:
        life = self._nodes[receiver].life

        def run() -> None:
            node = self._nodes[receiver]
            if node.process is None or node.life != life:
                return
            if receiver in self._frozen:
                self._schedule(TICK_SECONDS, run)
                return
            message, _, _ = self._codec.decode(frame)
            assert message is not None, "all processes have the same codec"
            if not self._connected(sender, receiver, message):
                return
            try:
                effects = list(node.process.receive(sender, message, self.clock(receiver)))
            except BadInput:  # what a session refuses: it is dropped, as there
                return
            self.perform(receiver, effects)

        self._schedule(delay, run)

    def _call(self, caller: str, call: Call) -> None:
        node = self._nodes[caller]
        life = node.life
        assert call.id not in node.calls, f"request {call.id} of {caller} has not ended"
        node.calls.add(call.id)

        def settle(result: Replied | Failed) -> None:
            if node.life != life or node.process is None or call.id not in node.calls:
                return
            if caller in self._frozen:
                self._schedule(TICK_SECONDS, lambda: settle(result))
                return
            node.calls.discard(call.id)
            if isinstance(result, Replied):
                result = self._if_connected(caller, call, result)
            self.perform(caller, list(node.process.settled(result, self.clock(caller))))

        def time_out() -> None:
            if call.id in node.calls:  # few are not answered
                settle(Failed(call.id, "deadline-exceeded", f"{call.peer} did not answer"))

        if not self._connected(caller, call.peer, call.message):
            refused = Failed(call.id, "unavailable", f"{call.peer} is not connected")
            self._schedule(self.faults.delay_seconds[0], lambda: settle(refused))
            return
        self._schedule(call.timeout_seconds, time_out)
        frame = self._codec.encode(call.message)
        delay = self._fate(caller, call.peer, len(frame), self.faults.call_loss)
        if delay is not None:
            self._schedule(delay, lambda: self._serve(caller, call, frame, settle))

    def _if_connected(self, caller: str, call: Call, result: Replied) -> Replied | Failed:
        """Return an answer, or that the connection ended before it arrived."""
        if self._connected(call.peer, caller, result.message):
            return result
        return Failed(call.id, "unavailable", f"{call.peer} is not connected any more")

    def _serve(
        self, caller: str, call: Call, frame: bytes, settle: Callable[[Replied | Failed], None]
    ) -> None:
        node = self._nodes[call.peer]
        if node.process is None:
            return
        if call.peer in self._frozen:
            self._schedule(TICK_SECONDS, lambda: self._serve(caller, call, frame, settle))
            return
        message, _, _ = self._codec.decode(frame)
        assert message is not None, "all processes have the same codec"
        if not self._connected(caller, call.peer, message):
            return
        result: Replied | Failed
        size = 0
        try:
            answer, body = node.process.serve(caller, message, self.clock(call.peer))
            is_wrong = bool(body) and self.random.random() < self.faults.body_corrupt
            # TLS protects answers; what a bad disk changes is what is read from it.
            if is_wrong and not isinstance(answer, HaveReply):
                place = self.random.randrange(len(body))
                body = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
            size = len(self._codec.encode(answer, body))
            result = Replied(call.id, answer, body)
            if not self._connected(call.peer, caller, answer):
                return
        except SennitError as error:
            result = Failed(call.id, error.code, str(error))
        delay = self._fate(call.peer, caller, size, self.faults.call_loss)
        if delay is not None:
            self._schedule(delay, lambda: settle(result))
