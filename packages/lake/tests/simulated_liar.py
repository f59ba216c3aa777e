"""A malicious member of a simulated network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from lake.peers.copies.chunks import Chunk, ChunkRequest, ListReply, ListRequest
from lake.peers.copies.have_messages import HaveReply, HaveRequest
from lake.peers.members.membership import Compare, Confirm, News, Probe, ProbeFor
from lake.peers.members.statuses import Suspicion
from lake.peers.sharing.publication_log import LogKey
from lake.peers.sharing.publications import EVERYONE, Entries, Heads, Want
from lake.peers.transport.machine import Effect, Send
from lake.peers.transport.messages import Message
from lake.peers.transport.signed import Statement
from sennit_core.errors import Unavailable

from .simulated_data import EntrySigner, GossipSigner
from .simulated_node import SimulatedNode
from .simulated_queries import Part

_HEARD_MAX = 200
_HUGE = 2**52


class Liar(SimulatedNode):
    """Claims every copy and has none, sends wrong chunks, replays, forges, accuses, sends garbage."""

    heard: list[Statement]

    def tick(self, now: float) -> Iterator[Effect]:
        yield from super().tick(now)
        random, others = self.world.random, [n for n in self.world.names if n != self.name]
        for target in random.sample(others, 2):
            yield Send(target, random.choice(_ATTACKS)(self, target))

    def receive(self, peer: str, message: Message, now: float) -> Iterator[Effect]:
        news = getattr(message, "news", ()) or getattr(message, "entries", ())
        self.heard = [*getattr(self, "heard", []), *news][-_HEARD_MAX:]
        yield from super().receive(peer, message, now)

    def serve(self, peer: str, message: Message, now: float) -> tuple[Message, bytes]:
        random = self.world.random
        match message:
            case HaveRequest():
                return HaveReply(), bytes([255]) * random.choice([0, len(message.objects)])
            case ListRequest(name):
                found = self.world.contents.get(name)
                if found is None or random.random() < 0.5:
                    return ListReply(random.randrange(_HUGE), 1), random.randbytes(32)
                return ListReply(len(found.data), 64), bytes.fromhex("".join(found.digests))
            case ChunkRequest():
                return Chunk(), random.randbytes(random.choice([0, 1, 64, 5000]))
            case Part():
                # What it computes cannot be verified; it can only be refused.
                raise Unavailable("a shard", hint="no")
        return super().serve(peer, message, now)

    def replayed(self, _target: str) -> Message:
        """Old statements of others, in any order, as news or as entries."""
        heard = getattr(self, "heard", [])
        some = tuple(self.world.random.sample(heard, min(5, len(heard))))
        return News(some) if self.world.random.random() < 0.5 else Entries(some)

    def forged(self, _target: str) -> Message:
        """What others have signed, with another content."""
        random, heard = self.world.random, getattr(self, "heard", [])
        if not heard:
            return News(())
        known = random.choice(heard)
        changes: dict[str, Any] = random.choice(
            [{"number": _HUGE}, {"state": "left"}, {"item": None}, {"previous": ""},
             {"number": -1}, {"items": {}, "part": 0, "parts": 1, "number": 1}, {"node": self.name}]
        )  # fmt: skip
        statement = replace(known, body={**known.body, **changes})
        return Entries((statement,)) if known.kind == "publication" else News((statement,))

    def accused(self, target: str) -> Message:
        """Suspicions that it has signed itself, of everybody, with any number."""
        random, signer, found = self.world.random, GossipSigner(self.name), []
        for node, peer in self.members.peers.items():
            number = random.choice([peer.status.number, peer.status.number + 1, _HUGE])
            suspicion = Suspicion(node, number, self.name)
            found.append(signer.sign_suspicion(suspicion, self.world.wall(self.name)))
        return News(tuple(found[:16]))

    def claimed(self, _target: str) -> Message:
        """Its own log with entries that no honest node writes."""
        random = self.world.random
        dataset = random.choice([*self.world.datasets, "", "x" * 300])
        content: dict[str, Any] = random.choice(
            [{"dataset": dataset, "item": None}, {"dataset": dataset, "item": {"id": 7}},
             {"items": {dataset: {}}, "part": 0, "parts": _HUGE}, {"dataset": dataset, "item": 3},
             {"items": [], "part": "a", "parts": None}]
        )  # fmt: skip
        number = random.choice([1, 2, _HUGE, -5])
        body = {"publisher": self.name, "audience": EVERYONE, "number": number, "previous": ""}
        entry = EntrySigner(self.name).sign({**body, **content}, self.world.wall(self.name))
        return Entries((entry,))

    def garbage(self, target: str) -> Message:
        """Messages that no honest node sends."""
        random, names = self.world.random, self.world.names
        return random.choice(_GARBAGE)(random.randrange(_HUGE), target, random.choice(names))


_ATTACKS: tuple[Callable[[Liar, str], Message], ...] = (
    Liar.replayed, Liar.forged, Liar.accused, Liar.claimed, Liar.garbage,
)  # fmt: skip
_GARBAGE: tuple[Callable[[int, str, str], Message], ...] = (
    lambda n, target, other: Confirm(n % 64),
    lambda n, target, other: ProbeFor(n, other),
    lambda n, target, other: ProbeFor(n, target),
    lambda n, target, other: Probe(-n),
    lambda n, target, other: Compare({"": n, other[:16]: "x", "y" * 16: -1}),
    lambda n, target, other: Compare({}),
    lambda n, target, other: Heads({}),
    lambda n, target, other: Heads(
        {LogKey(other).text: [n, "x"], "/": [n, 1], "a": 5, "b": [None, 1]}
    ),
    lambda n, target, other: Heads({LogKey(other, target).text: [n, None]}),
    lambda n, target, other: Want(LogKey(other).text, -n),
    lambda n, target, other: Want(LogKey(target, other).text, 0),
    lambda n, target, other: Entries((Statement("publication", {}, 0.0, 0.0, ""),)),
    lambda n, target, other: News((Statement("status", {"node": 5, "number": "x"}, 0.0, 0.0, ""),)),
)
