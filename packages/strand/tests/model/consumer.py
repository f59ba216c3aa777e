"""`_ring_consumer.c`: joining, waiting, reading, releasing. A view here holds one entry."""

from .ring import (
    EOS,
    Ring,
    strand_aborted,
    strand_generation_of,
    strand_low_water,
    strand_mark_left,
)
from .steps import PROCESS_DIED, RELEASE, Program, check, fence, load, look, nap, ring_bell, store

__all__ = [
    "NEXT",
    "OLDEST",
    "Consumer",
    "has_committed",
    "producer_waits",
    "strand_acknowledge",
    "strand_arm",
    "strand_consumer_wait",
    "strand_follow_reset",
    "strand_join",
    "strand_leave",
    "strand_read_block",
]

OLDEST, NEXT = range(2)


class Consumer:
    """A consumer's private half."""

    def __init__(self, ring: Ring, index: int) -> None:
        self.ring = ring
        self.index = index
        self.generation = 0
        self.read = 0


def advance_read(consumer: Consumer, upto: int) -> Program[None]:
    ring, old = consumer.ring, consumer.read
    consumer.read = upto
    yield store(ring.entry(consumer.index, "read"), upto, RELEASE)
    yield fence()
    wanted = yield load(ring.at("producer.threshold"))
    if old < wanted <= upto:
        yield ring_bell(ring.at("producer.bell"))


def enter(consumer: Consumer, first: int) -> Program[None]:
    ring = consumer.ring
    consumer.read = first
    yield from show_attached(consumer, first)
    yield fence()
    join_position = yield load(ring.at("join_position"))
    yield from advance_read(consumer, max(join_position, first))


def strand_join(consumer: Consumer, start: int) -> Program[None]:
    ring = consumer.ring
    yield from strand_follow_reset(consumer)
    first = yield from find_start(ring, start)
    yield from enter(consumer, first)
    rewound = yield from strand_follow_reset(consumer)
    while rewound:
        first = 0
        if start == NEXT:
            first = yield load(ring.at("producer.commit"))
        yield from enter(consumer, first)
        rewound = yield from strand_follow_reset(consumer)
    yield ring_bell(ring.at("producer.bell"))


def find_start(ring: Ring, start: int) -> Program[int]:
    if start == NEXT:
        committed = yield load(ring.at("producer.commit"))
        return committed
    low_water = yield from strand_low_water(ring)
    if not ring.resets:
        return low_water
    committed = yield load(ring.at("producer.commit"))
    return min(low_water, committed)  # who died joining during a reset may have left a higher one


def show_attached(consumer: Consumer, first: int) -> Program[None]:
    ring, index = consumer.ring, consumer.index
    yield store(ring.entry(index, "threshold"), 0)
    yield store(ring.entry(index, "read"), first, RELEASE)
    yield store(ring.entry(index, "state"), 1, RELEASE)


def strand_leave(consumer: Consumer) -> Program[None]:
    yield from strand_mark_left(consumer.ring, consumer.index)


def strand_follow_reset(consumer: Consumer) -> Program[bool]:
    generation = yield from strand_generation_of(consumer.ring)
    if generation == consumer.generation:
        return False
    consumer.generation = generation
    consumer.read = 0
    return True


def strand_read_block(consumer: Consumer, seq: int) -> Program[None]:
    """Find in slot and payload what the producer put there."""
    ring = consumer.ring
    content = ring.content(seq, consumer.generation)
    yield check(ring.slot(seq), content)
    if ring.payload(seq):
        start = yield load(ring.slot(seq) + ".start")
        for offset in range(start, start + ring.payload(seq)):
            yield check(ring.heap(offset), content)


def strand_acknowledge(consumer: Consumer, upto: int) -> Program[None]:
    yield from advance_read(consumer, upto)


def strand_arm(consumer: Consumer, threshold: int) -> Program[None]:
    yield store(consumer.ring.entry(consumer.index, "threshold"), threshold)
    yield fence()


def has_committed(consumer: Consumer, threshold: int) -> Program[bool]:
    ring = consumer.ring
    committed = yield load(ring.at("producer.commit"))
    if committed < threshold:
        return False
    generation = yield from strand_generation_of(ring)
    return generation == consumer.generation


def strand_consumer_wait(consumer: Consumer, threshold: int) -> Program[bool]:
    ring = consumer.ring
    yield from strand_arm(consumer, threshold)
    yield look(ring.consumer_bell(consumer.index))
    committed = yield from has_committed(consumer, threshold)
    if committed:
        return True
    status = yield load(ring.at("status"))
    if status >= EOS:
        return False
    aborted = yield from strand_aborted(ring)
    if aborted:
        return False
    generation = yield from strand_generation_of(ring)
    if generation != consumer.generation:
        return False
    waits = yield from producer_waits(consumer)
    if waits:
        return False
    died = ((PROCESS_DIED, 1), (ring.at("producer.lock"), 0))
    yield nap(ring.consumer_bell(consumer.index), unless=(died,))
    committed = yield from has_committed(consumer, threshold)
    return committed


def producer_waits(consumer: Consumer) -> Program[bool]:
    """Whether the producer sleeps until we acknowledge more than we have."""
    ring, wanted = consumer.ring, 0
    if ring.patience:
        wanted = yield load(ring.at("producer.threshold"))
    return wanted > consumer.read
