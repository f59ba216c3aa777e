"""Which processes share which ring. Small: two of everything show what hundreds would.

Every behaviour under TSO is one under PSO as well, so that PSO alone says that a scenario is right.
"""

from collections.abc import Callable
from typing import NamedTuple

from .consumer import NEXT, OLDEST
from .parties import (
    Party,
    canceller,
    consumer,
    fan_in,
    joiner,
    producer,
    resetter,
    successor,
)
from .ring import ATTACHED, LEFT, STREAMING, Ring

__all__ = ["BIG", "SCENARIOS", "Cast"]


class Cast(NamedTuple):
    """The processes of a scenario; one of them, by its place, may die at any step."""

    parties: tuple[Party, ...]
    mortal: int | None = None


def one_consumer() -> Cast:
    ring = Ring()
    return Cast((producer(ring, 4), consumer(ring, 0, 4)))


def payloads() -> Cast:
    ring = Ring(payloads=(2, 1))
    return Cast((producer(ring, 4), consumer(ring, 0, 4)))


def payloads_fill_the_heap_first() -> Cast:
    ring = Ring(capacity=4, payloads=(2,), patience=True)
    return Cast((producer(ring, 4), consumer(ring, 0, 4, min_records=3)))


def two_consumers() -> Cast:
    ring = Ring(capacity=1, consumers=2)
    return Cast((producer(ring, 2, "wait"), consumer(ring, 0, 2), consumer(ring, 1, 2)))


def one_of_two_leaves() -> Cast:
    ring = Ring(capacity=1, consumers=2)
    leaver = consumer(ring, 1, 3, leaves_after=1)
    return Cast((producer(ring, 3, "wait"), consumer(ring, 0, 3), leaver))


def the_only_consumer_leaves() -> Cast:
    ring = Ring(capacity=1)
    return Cast((producer(ring, 3, "raise"), consumer(ring, 0, 3, leaves_after=1)))


def abort() -> Cast:
    ring = Ring(capacity=1, aborts=True)
    return Cast((producer(ring, 3), consumer(ring, 0, 3), canceller(ring)))


def joining_at_the_oldest() -> Cast:
    ring = Ring(capacity=1, consumers=2)
    return Cast((producer(ring, 2, "wait"), consumer(ring, 0, 2), joiner(ring, 1, 2)))


def joining_at_the_next() -> Cast:
    ring = Ring(capacity=1, consumers=2)
    later = joiner(ring, 1, 2, start=NEXT)
    return Cast((producer(ring, 2, "wait"), consumer(ring, 0, 2), later))


def first_consumer_joins_later() -> Cast:
    ring = Ring(capacity=1)
    return Cast((producer(ring, 3, "wait"), joiner(ring, 0, 3, start=OLDEST)))


def first_consumer_wants_the_next() -> Cast:
    ring = Ring(capacity=1)
    return Cast((producer(ring, 3, "wait"), joiner(ring, 0, 3, start=NEXT)))


def next_one_after_a_leaver() -> Cast:
    ring = Ring(capacity=1)
    leaver = consumer(ring, 0, 3, leaves_after=1)
    return Cast((producer(ring, 3, "wait"), leaver, joiner(ring, 0, 3)))


def discarding_while_one_joins() -> Cast:
    ring = Ring(capacity=1, consumers=2)
    leaver = consumer(ring, 0, 2, leaves_after=1)
    return Cast((producer(ring, 2, "discard"), leaver, joiner(ring, 1, 2)))


def producer_dies() -> Cast:
    ring = Ring(capacity=1, payloads=(2, 1), deaths=True)
    return Cast((producer(ring, 3), consumer(ring, 0, 3)), mortal=0)


def consumer_dies() -> Cast:
    ring = Ring(capacity=1, payloads=(2, 1), deaths=True)
    return Cast((producer(ring, 3), consumer(ring, 0, 3)), mortal=1)


def producer_of_two_dies() -> Cast:
    ring = Ring(capacity=1, consumers=2, deaths=True)
    return Cast((producer(ring, 2), consumer(ring, 0, 2), consumer(ring, 1, 2)), mortal=0)


def one_of_two_consumers_dies() -> Cast:
    ring = Ring(capacity=1, consumers=2, deaths=True)
    return Cast((producer(ring, 2), consumer(ring, 0, 2), consumer(ring, 1, 2)), mortal=2)


def joiner_dies() -> Cast:
    ring = Ring(capacity=1, consumers=2, deaths=True)
    return Cast((producer(ring, 2), consumer(ring, 0, 2), joiner(ring, 1, 2)), mortal=2)


def joining_in_the_entry_of_a_dead_one() -> Cast:
    ring = Ring(capacity=1, deaths=True)
    return Cast((producer(ring, 3, "wait"), consumer(ring, 0, 3), joiner(ring, 0, 3)), mortal=1)


def joining_at_the_next_in_the_entry_of_a_dead_one() -> Cast:
    ring = Ring(capacity=1, deaths=True)
    later = joiner(ring, 0, 3, start=NEXT)
    return Cast((producer(ring, 3, "wait"), consumer(ring, 0, 3), later), mortal=1)


def reading_on_where_a_dead_one_stopped() -> Cast:
    ring = Ring(capacity=1, consumers=2, deaths=True)
    later = joiner(ring, 1, 2, after=0)
    return Cast((producer(ring, 2, "wait"), consumer(ring, 0, 2), later), mortal=1)


def caller_of_an_abort_dies() -> Cast:
    ring = Ring(capacity=1, consumers=2, aborts=True, deaths=True)
    caller = consumer(ring, 1, 2, leaves_after=1, aborts=True)
    return Cast((producer(ring, 2), consumer(ring, 0, 2), caller), mortal=2)


def resuming_a_stream() -> Cast:
    ring = Ring(capacity=4, payloads=(2,), deaths=True)
    reader = consumer(ring, 0, 3, patient=True)
    return Cast((producer(ring, 3), reader, successor(ring, 3)), mortal=0)


def resuming_below_the_join_position() -> Cast:
    """The dead producer had published join position 2, then found that consumer 1 had joined at 1,
    unseen by consumer 0, which has left. Consumer 1 missed the join position, and its record must
    be kept."""
    ring = Ring(capacity=2, consumers=2)
    words = {
        "producer.commit": 2,
        "join_position": 2,
        "status": STREAMING,
        ring.slot(0): ring.content(0, 0),
        ring.slot(1): ring.content(1, 0),
        ring.entry(0, "state"): LEFT,
        ring.entry(0, "read"): 2,
        ring.entry(1, "state"): ATTACHED,
        ring.entry(1, "read"): 1,
    }
    reader = consumer(ring, 1, 4, patient=True, from_record=1)
    return Cast((successor(ring, 4, words=words), reader))


def resetting() -> Cast:
    ring = Ring(capacity=2, resets=True)
    return Cast((resetter(ring, 1, 3), consumer(ring, 0, 1, 3)))


def resetting_while_one_joins() -> Cast:
    ring = Ring(capacity=1, resets=True)
    return Cast((resetter(ring, 1, 2), joiner(ring, 0, 1, 2, start=NEXT)))


def resetting_while_one_leaves_and_one_joins() -> Cast:
    """In the entry of the consumer that leaves: the reset does not hold its lock."""
    ring = Ring(capacity=1, resets=True)
    leaver = consumer(ring, 0, 1, leaves_after=1)
    return Cast((resetter(ring, 1, 2, "wait"), leaver, joiner(ring, 0, 1, 2, start=OLDEST)))


def resetting_while_one_dies_joining() -> Cast:
    """Its entry may then say that it has read more than the new stream has; another one comes."""
    ring = Ring(capacity=1, resets=True, deaths=True)
    leaver = consumer(ring, 0, 2, leaves_after=2)
    dying = joiner(ring, 0, 2, 2, start=NEXT)
    return Cast((resetter(ring, 2, 2, "wait"), leaver, dying, joiner(ring, 0, 2, 2)), mortal=2)


def dying_during_a_reset() -> Cast:
    """A successor finishes the reset; the stream may then be the second or the third."""
    ring = Ring(capacity=1, resets=True, deaths=True)
    reader = consumer(ring, 0, 1, 2, 2, patient=True)
    heir = successor(ring, 1, 2, 2, when_unread="discard")
    return Cast((resetter(ring, 1, 2), reader, heir), mortal=0)


def joining_with_an_old_view() -> Cast:
    """A view opened before the reset joins after it, where the first record is gone already."""
    ring = Ring(capacity=1, resets=True)
    return Cast((resetter(ring, 0, 2, "discard"), joiner(ring, 0, 0, 2)))


def fanning_in() -> Cast:
    rings = tuple(Ring(capacity=1, name=name, doorbell="doorbell") for name in ("a.", "b."))
    return Cast((producer(rings[0], 1), producer(rings[1], 2), fan_in(rings, (1, 2))))


def joining_with_more_room() -> Cast:
    ring = Ring(consumers=2)
    return Cast((producer(ring, 4, "wait"), consumer(ring, 0, 4), joiner(ring, 1, 4)))


def two_consumers_with_more_room() -> Cast:
    ring = Ring(consumers=2, payloads=(1, 2))
    return Cast((producer(ring, 3, "wait"), consumer(ring, 0, 3), consumer(ring, 1, 3)))


SCENARIOS: tuple[Callable[[], Cast], ...] = (
    one_consumer,
    payloads,
    payloads_fill_the_heap_first,
    two_consumers,
    one_of_two_leaves,
    the_only_consumer_leaves,
    abort,
    joining_at_the_oldest,
    joining_at_the_next,
    first_consumer_joins_later,
    first_consumer_wants_the_next,
    next_one_after_a_leaver,
    discarding_while_one_joins,
    producer_dies,
    consumer_dies,
    producer_of_two_dies,
    one_of_two_consumers_dies,
    joiner_dies,
    joining_in_the_entry_of_a_dead_one,
    joining_at_the_next_in_the_entry_of_a_dead_one,
    reading_on_where_a_dead_one_stopped,
    caller_of_an_abort_dies,
    resuming_a_stream,
    resuming_below_the_join_position,
    resetting,
    resetting_while_one_joins,
    resetting_while_one_leaves_and_one_joins,
    resetting_while_one_dies_joining,
    dying_during_a_reset,
    joining_with_an_old_view,
    fanning_in,
)

BIG: tuple[Callable[[], Cast], ...] = (joining_with_more_room, two_consumers_with_more_room)
