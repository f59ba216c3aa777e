"""`_ring_producer.c`: room, claims, publication.

Left out, because they order nothing: slots claimed in advance and not yet sealed, zeroing a slot
(its filling is the same kind of store to the same place), the skip mark, and the words that are
written for onlookers alone.
"""

from .ring import (
    ATTACHED,
    INITIALIZING,
    LEFT,
    VACANT,
    Ring,
    strand_aborted,
    strand_has_reader,
    strand_is_abandoned,
    strand_low_water,
    strand_ring_every_bell,
)
from .steps import (
    PROCESS_DIED,
    RELEASE,
    Condition,
    Program,
    exchange,
    fence,
    load,
    look,
    nap,
    ring_bell,
    store,
)

__all__ = [
    "ABORTED",
    "OK",
    "WAIT",
    "Producer",
    "strand_producer_arm",
    "strand_producer_init",
    "strand_producer_wait",
    "strand_publish",
    "strand_reset",
    "strand_write_block",
]

OK, WAIT, ABORTED = range(3)


class Producer:
    """The producer's private half."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.heap_end = [0] * ring.capacity
        self.write = 0
        self.commit = 0
        self.heap_write = 0
        self.read = 0
        self.join_position = 0
        self.discards = False
        self.raises = False
        self.generation = 0


def strand_producer_init(producer: Producer) -> Program[None]:
    """Start at the counters of the header."""
    ring = producer.ring
    commit = yield load(ring.at("producer.commit"))
    heap = yield load(ring.at("producer.heap_commit"))
    join_position = yield load(ring.at("join_position"))
    low_water = join_position
    has_reader = yield from strand_has_reader(ring)
    if has_reader:
        low_water = yield from strand_low_water(ring)
    producer.write = producer.commit = commit
    producer.heap_write = heap
    producer.join_position = join_position
    producer.read = max(min(join_position, low_water), commit - ring.capacity, 0)
    producer.heap_end = [max(0, heap - ring.heap_capacity)] * ring.capacity
    producer.heap_end[(commit - 1) % ring.capacity] = heap
    yield store(ring.at("producer.threshold"), 0)


def refresh_read(producer: Producer) -> Program[None]:
    """Advance the cached low-water mark; publish the join position before looking for joiners."""
    ring = producer.ring
    low_water = yield from strand_low_water(ring)
    if producer.discards:
        has_reader = yield from strand_has_reader(ring)
        if not has_reader:
            low_water = producer.commit
    if low_water > producer.commit:
        assert ring.resets, f"low-water mark {low_water} is above commit {producer.commit}"
        return  # of the old stream: a consumer that joined during the reset follows it, or is dead
    if low_water > producer.join_position:
        producer.join_position = low_water
        yield store(ring.at("join_position"), low_water, RELEASE)
        yield fence()
        has_reader = yield from strand_has_reader(ring)
        if has_reader:
            again = yield from strand_low_water(ring)
            low_water = min(low_water, again)
    producer.read = max(producer.read, low_water)


def strand_claim_slots(producer: Producer) -> Program[tuple[int, int]]:
    ring = producer.ring
    aborted = yield from strand_aborted(ring)
    if aborted:
        return ABORTED, 0
    if producer.write - producer.read >= ring.capacity:
        yield from refresh_read(producer)
        if producer.write - producer.read >= ring.capacity:
            return WAIT, producer.write + 1 - ring.capacity
    return OK, 0


def place(producer: Producer, count: int) -> int:
    capacity = producer.ring.heap_capacity
    physical = producer.heap_write % capacity
    skipped = capacity - physical if physical + count > capacity else 0
    return producer.heap_write + skipped


def heap_tail(producer: Producer, count: int) -> int:
    return producer.heap_end[(count - 1) % producer.ring.capacity]


def reads_for_heap(producer: Producer, end: int) -> int:
    return next(
        count
        for count in range(producer.read + 1, producer.write + 1)
        if end - heap_tail(producer, count) <= producer.ring.heap_capacity
    )


def strand_claim_heap(producer: Producer, count: int) -> Program[tuple[int, int]]:
    capacity = producer.ring.heap_capacity
    end = place(producer, count) + count
    if count and end - heap_tail(producer, producer.read) > capacity:
        yield from refresh_read(producer)
        if end - heap_tail(producer, producer.read) > capacity:
            return WAIT, reads_for_heap(producer, end)
    return OK, 0


def strand_publish(producer: Producer) -> Program[None]:
    ring = producer.ring
    before, after = producer.commit, producer.write
    producer.commit = after
    if any(ring.payloads):
        yield store(ring.at("producer.heap_commit"), producer.heap_write, RELEASE)
    yield store(ring.at("producer.commit"), after, RELEASE)
    yield fence()
    for index in range(ring.consumers):
        wanted = yield load(ring.entry(index, "threshold"))
        if before < wanted <= after:
            yield ring_bell(ring.consumer_bell(index))


def strand_write_block(producer: Producer) -> Program[tuple[int, int]]:
    """Claim, fill, seal and publish one record."""
    ring, seq = producer.ring, producer.write
    result, threshold = yield from strand_claim_slots(producer)
    if result != OK:
        return result, threshold
    result, threshold = yield from strand_claim_heap(producer, ring.payload(seq))
    if result != OK:
        return result, threshold
    content = ring.content(seq, producer.generation)
    count = ring.payload(seq)
    if count:
        start = place(producer, count)
        for offset in range(start, start + count):
            yield store(ring.heap(offset), content)
        yield store(ring.slot(seq) + ".start", start)
        producer.heap_write = start + count
    yield store(ring.slot(seq), content)
    producer.heap_end[seq % ring.capacity] = producer.heap_write
    producer.write += 1
    yield from strand_publish(producer)
    return OK, 0


def strand_reset(producer: Producer) -> Program[None]:
    """Rewind to an empty ring of the next generation."""
    ring = producer.ring
    yield store(ring.at("producer.commit"), 0)
    yield store(ring.at("producer.heap_commit"), 0)
    yield store(ring.at("producer.threshold"), 0)
    yield store(ring.at("join_position"), 0, RELEASE)  # the commit is seen to be 0 before it
    for index in range(ring.consumers):
        yield store(ring.entry(index, "read"), 0, RELEASE)  # likewise
        yield store(ring.entry(index, "threshold"), 0)
        yield exchange(ring.entry(index, "state"), LEFT, VACANT)
    yield store(ring.at("abort"), 0)
    yield store(ring.at("status"), INITIALIZING)
    producer.generation += 1  # the word's one writer need not load it
    yield store(ring.at("generation"), producer.generation, RELEASE)
    yield fence()
    for index in range(ring.consumers):
        state = yield load(ring.entry(index, "state"))
        if state == ATTACHED:
            yield store(ring.entry(index, "read"), 0)
    yield from strand_ring_every_bell(ring)
    yield from strand_producer_init(producer)


def has_room(producer: Producer, threshold: int) -> Program[bool]:
    yield from refresh_read(producer)
    return producer.read >= threshold


def strand_producer_arm(producer: Producer, threshold: int) -> Program[None]:
    ring = producer.ring
    yield store(ring.at("producer.threshold"), threshold)
    yield fence()
    yield from wake_waiting_consumers(producer)
    yield look(ring.at("producer.bell"))


def wake_waiting_consumers(producer: Producer) -> Program[None]:
    """Wake consumers that wait for several records: there will not be more."""
    ring = producer.ring
    if not ring.patience:
        return
    for index in range(ring.consumers):
        wanted = yield load(ring.entry(index, "threshold"))
        read = yield load(ring.entry(index, "read"))
        if read < producer.commit < wanted:
            yield ring_bell(ring.consumer_bell(index))


def strand_producer_wait(producer: Producer, threshold: int) -> Program[bool]:
    ring = producer.ring
    yield from strand_producer_arm(producer, threshold)
    room = yield from has_room(producer, threshold)
    if room:
        return True
    aborted = yield from strand_aborted(ring)
    if aborted:
        return False
    if producer.raises:
        abandoned = yield from strand_is_abandoned(ring)
        if abandoned:
            return False
    yield nap(ring.at("producer.bell"), unless=process_died(ring))
    room = yield from has_room(producer, threshold)
    return room


def process_died(ring: Ring) -> tuple[Condition, ...]:
    """Attached, and its lock free: what the look after each nap would find."""
    return tuple(
        ((PROCESS_DIED, 1), (ring.entry(index, "state"), ATTACHED), (ring.entry(index, "lock"), 0))
        for index in range(ring.consumers)
    )
