"""A node of a simulated network that was revoked and does not accept that."""

from __future__ import annotations

from collections.abc import Iterator

from lake.peers.copies.chunks import ChunkRequest, ListRequest
from lake.peers.copies.have_messages import HaveRequest
from lake.peers.members.membership import News
from lake.peers.members.roster import RosterHead, RosterNews
from lake.peers.sharing.publications import EVERYONE, Entries
from lake.peers.transport.machine import Effect, Failed, Replied, Send
from lake.peers.transport.messages import Message
from lake.peers.transport.signed import Statement

from .simulated_node import SimulatedNode
from .simulated_queries import Part

__all__ = ["Revoked"]

_HEARD_MAX = 100
_UNKNOWN_DATASET = "9" * 26


class Revoked(SimulatedNode):
    """A node that was revoked and continues: it announces itself, publishes, replays, and asks for data."""

    def accepts(self, _peer: str) -> bool:
        return True

    def tick(self, now: float) -> Iterator[Effect]:
        yield from super().tick(now)
        random, others = self.world.random, [n for n in self.world.names if n != self.name]
        yield from self._own(self.members.update(now))
        yield from self._own(
            self.logs.publish(
                _UNKNOWN_DATASET, {"id": random.randrange(99)}, EVERYONE, self.members.alive()
            )
        )
        heard: list[Statement] = self.disk.get("heard", [])
        some = tuple(random.sample(heard, min(5, len(heard))))
        for target in random.sample(others, 2):
            yield Send(target, random.choice((News(some), Entries(some), RosterHead("x"))))
        dataset = random.choice(sorted(self.world.datasets))
        if shards := sorted(self.world.contents):
            yield self._ask(random.choice(others), dataset, random.choice(shards))

    def _ask(self, target: str, dataset: str, name: str) -> Effect:
        requests: tuple[Message, ...] = (
            ChunkRequest(name, 0, dataset=dataset),
            ListRequest(name, dataset=dataset),
            HaveRequest.of([(dataset, name)]),
            Part(dataset, (name,)),
        )
        return self.call(target, self.world.random.choice(requests), 3.0, None, 0)

    def receive(self, peer: str, message: Message, now: float) -> Iterator[Effect]:
        news = getattr(message, "news", ()) or getattr(message, "entries", ())
        self.disk["heard"] = [*self.disk.get("heard", []), *news][-_HEARD_MAX:]
        if not isinstance(message, RosterNews):  # it does not accept what it learns of itself
            yield from super().receive(peer, message, now)

    def settled(self, result: Replied | Failed, now: float) -> Iterator[Effect]:
        if self._calls[result.id][0] is None:
            del self._calls[result.id]
        else:
            yield from super().settled(result, now)
