"""What the Python classes add to the core: locks, dead consumers, the end of a stream."""

from .consumer import (
    Consumer,
    producer_waits,
    strand_consumer_wait,
    strand_follow_reset,
    strand_join,
    strand_leave,
)
from .producer import (
    OK,
    WAIT,
    Producer,
    has_room,
    strand_producer_init,
    strand_producer_wait,
    strand_reset,
    strand_write_block,
)
from .ring import (
    ATTACHED,
    EOS,
    ERROR,
    INITIALIZING,
    STREAMING,
    Ring,
    strand_aborted,
    strand_generation_of,
    strand_is_abandoned,
    strand_mark_left,
    strand_set_status,
)
from .steps import Program, is_held, load, try_lock, unlock

__all__ = [
    "AGAIN",
    "DIED",
    "ENDED",
    "FAILED",
    "MORE",
    "RESET",
    "claim_entry",
    "end_stream",
    "look_for_more",
    "release_entry",
    "resume",
    "try_reset",
    "write",
]

MORE, AGAIN, ENDED, FAILED, DIED, RESET = range(6)


def mark_dead_consumers_left(ring: Ring) -> Program[None]:
    """Mark attached consumers whose lock is free as left."""
    if not ring.deaths:
        return
    for index in range(ring.consumers):
        state = yield load(ring.entry(index, "state"))
        if state == ATTACHED:
            locked = yield try_lock(ring.entry(index, "lock"))
            if locked:
                yield from mark_left_if_attached(ring, index)
                yield unlock(ring.entry(index, "lock"))


def mark_left_if_attached(ring: Ring, index: int) -> Program[None]:
    state = yield load(ring.entry(index, "state"))
    if state == ATTACHED:
        yield from strand_mark_left(ring, index)


def wait_for_room(producer: Producer, threshold: int) -> Program[bool]:
    """Sleep for room; False when no consumer is left that could make some."""
    room = yield from strand_producer_wait(producer, threshold)
    if room:
        return True
    yield from mark_dead_consumers_left(producer.ring)
    if producer.raises:
        abandoned = yield from strand_is_abandoned(producer.ring)
        if abandoned:
            room = yield from has_room(producer, threshold)  # made before they went
            return room
    return True


def write(producer: Producer, count: int, when_unread: str = "raise") -> Program[bool]:
    """Write up to `count` records in all; False when no consumer is left."""
    producer.discards, producer.raises = when_unread == "discard", when_unread == "raise"
    while producer.commit < count:
        result, threshold = yield from strand_write_block(producer)
        if result == WAIT:
            wanted = yield from wait_for_room(producer, threshold)
            if not wanted:
                return False
        elif result != OK:
            return False
    return True


def end_stream(producer: Producer, complete: bool) -> Program[None]:
    yield from strand_set_status(producer.ring, EOS if complete else ERROR)


def resume(producer: Producer) -> Program[bool]:
    """Resume a dead producer's stream; False when it had ended."""
    ring = producer.ring
    locked = 0
    while not locked:
        locked = yield try_lock(ring.at("producer.lock"))
    status = yield load(ring.at("status"))
    if status in (EOS, ERROR):
        return False
    producer.generation = yield from strand_generation_of(ring)
    yield from strand_producer_init(producer)
    rewound = status != INITIALIZING  # not begun: the header may be half of a reset
    while not rewound:
        rewound = yield from try_reset(producer)
    yield from strand_set_status(ring, STREAMING)
    return True


def claim_entry(consumer: Consumer, start: int) -> Program[None]:
    """Lock an entry as soon as it is free, mark a dead holder as left, and join."""
    ring, index = consumer.ring, consumer.index
    locked = 0
    while not locked:
        locked = yield try_lock(ring.entry(index, "lock"))
    if ring.deaths:
        yield from mark_left_if_attached(ring, index)
    yield from strand_join(consumer, start)


def release_entry(consumer: Consumer) -> Program[None]:
    yield from strand_leave(consumer)
    yield unlock(consumer.ring.entry(consumer.index, "lock"))


def look_for_more(consumer: Consumer, min_records: int = 1) -> Program[int]:
    """Wait for more records; say that they came, or how the stream is over."""
    ring = consumer.ring
    came = yield from strand_consumer_wait(consumer, consumer.read + min_records)
    if came:
        return MORE
    held = yield from lives(ring, ring.at("producer.lock"))
    status = yield load(ring.at("status"))
    aborted = yield from strand_aborted(ring)
    committed = yield load(ring.at("producer.commit"))
    waits = yield from producer_waits(consumer)
    rewound = yield from strand_follow_reset(consumer)  # last: it validates the count, too
    if rewound:
        return RESET
    ended = status in (EOS, ERROR) or aborted or not held
    if committed > consumer.read and (ended or waits or not ring.patience):
        return MORE
    if status == EOS:
        return ENDED
    if status == ERROR or aborted:
        return FAILED
    return AGAIN if held else DIED


def lives(ring: Ring, lock: str) -> Program[int]:
    held = 1
    if ring.deaths:
        held = yield is_held(lock)
    return held


def try_reset(producer: Producer) -> Program[bool]:
    """Rewind an ended ring; False when a consumer still has records, joins or leaves."""
    ring, kept_out, conflict = producer.ring, 0, False
    for index in range(ring.consumers):
        locked = yield try_lock(ring.entry(index, "lock"))
        if locked:
            kept_out |= 1 << index
        else:
            conflict = yield from has_unread(producer, index)
            if conflict:
                break
    if not conflict:
        yield from strand_reset(producer)
    for index in range(ring.consumers):
        if kept_out >> index & 1:
            yield unlock(ring.entry(index, "lock"))
    return not conflict


def has_unread(producer: Producer, index: int) -> Program[bool]:
    """Whether an entry in use is on its way in or out, or has records left."""
    state = yield load(producer.ring.entry(index, "state"))
    read = yield load(producer.ring.entry(index, "read"))
    return state != ATTACHED or read != producer.commit
