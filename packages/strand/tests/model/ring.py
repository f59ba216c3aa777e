"""`_ring.c`: the shared words, and what either side does with them."""

from dataclasses import dataclass

from .steps import RELEASE, Program, load, ring_bell, store

__all__ = [
    "ATTACHED",
    "EOS",
    "ERROR",
    "INITIALIZING",
    "LEFT",
    "STREAMING",
    "VACANT",
    "Ring",
    "strand_aborted",
    "strand_generation_of",
    "strand_has_reader",
    "strand_is_abandoned",
    "strand_low_water",
    "strand_mark_left",
    "strand_ring_every_bell",
    "strand_set_status",
    "strand_signal_abort",
]

VACANT, ATTACHED, LEFT = range(3)
INITIALIZING, STREAMING, EOS, ERROR = range(4)


@dataclass(frozen=True)
class Ring:
    """The ring that a program works on, and what may happen to it while the model runs.

    Attributes:
        capacity: slots.
        consumers: consumer entries in use; the real ring has eight.
        payloads: heap cells of each record, in order; 0 is a record without a payload.
        heap_capacity: heap cells.
        name: a prefix of its words, where there are several rings.
        doorbell: the bell that every consumer of a fan-in sleeps on; empty: its entry's own.
        patience: consumers may wait for more than one record at once.
        deaths: processes may die. Without deaths no process checks: each check would be the same.
        aborts: likewise, a consumer may ask the producer to stop.
        resets: likewise, the producer may begin another stream.
    """

    capacity: int = 2
    consumers: int = 1
    payloads: tuple[int, ...] = (0,)
    heap_capacity: int = 4
    name: str = ""
    doorbell: str = ""
    patience: bool = False
    deaths: bool = False
    aborts: bool = False
    resets: bool = False

    def at(self, word: str) -> str:
        """Name a word of the header."""
        return self.name + word

    def entry(self, index: int, word: str) -> str:
        """Name a word of a consumer entry."""
        return f"{self.name}consumer{index}.{word}"

    def slot(self, seq: int) -> str:
        """Name the slot of a record."""
        return f"{self.name}slot{seq % self.capacity}"

    def heap(self, offset: int) -> str:
        """Name the heap cell at a monotonic offset."""
        return f"{self.name}heap{offset % self.heap_capacity}"

    def consumer_bell(self, index: int) -> str:
        """Name what the consumer of an entry sleeps on."""
        return self.doorbell or self.entry(index, "bell")

    def payload(self, seq: int) -> int:
        """Count the heap cells of a record."""
        return self.payloads[seq % len(self.payloads)]

    def content(self, seq: int, generation: int) -> int:
        """Return what a record's slot and payload hold: unlike that of every other record."""
        return 1 + seq + 50 * generation


def strand_ring_every_bell(ring: Ring) -> Program[None]:
    yield ring_bell(ring.at("producer.bell"))
    for index in range(ring.consumers):
        yield ring_bell(ring.entry(index, "bell"))
    if ring.doorbell:
        yield ring_bell(ring.doorbell)


def strand_low_water(ring: Ring) -> Program[int]:
    lowest, furthest = 255, 0
    for index in range(ring.consumers):
        state = yield load(ring.entry(index, "state"))
        if state == VACANT:
            continue
        read = yield load(ring.entry(index, "read"))
        if state == ATTACHED:
            lowest = min(lowest, read)
        else:
            furthest = max(furthest, read)
    return lowest if lowest != 255 else furthest


def strand_has_reader(ring: Ring) -> Program[bool]:
    for index in range(ring.consumers):
        state = yield load(ring.entry(index, "state"))
        if state == ATTACHED:
            return True
    return False


def strand_is_abandoned(ring: Ring) -> Program[bool]:
    """Whether there were consumers, and all of them have left."""
    left = False
    for index in range(ring.consumers):
        state = yield load(ring.entry(index, "state"))
        left = left or state == LEFT
    if not left:
        return False
    has_reader = yield from strand_has_reader(ring)
    return not has_reader


def strand_generation_of(ring: Ring) -> Program[int]:
    generation = 0
    if ring.resets:
        generation = yield load(ring.at("generation"))
    return generation


def strand_aborted(ring: Ring) -> Program[int]:
    aborted = 0
    if ring.aborts:
        aborted = yield load(ring.at("abort"))
    return aborted


def strand_set_status(ring: Ring, status: int) -> Program[None]:
    yield store(ring.at("status"), status, RELEASE)
    yield from strand_ring_every_bell(ring)


def strand_signal_abort(ring: Ring) -> Program[None]:
    yield store(ring.at("abort"), 1, RELEASE)
    yield from strand_ring_every_bell(ring)


def strand_mark_left(ring: Ring, index: int) -> Program[None]:
    yield store(ring.entry(index, "state"), LEFT, RELEASE)
    yield ring_bell(ring.at("producer.bell"))
