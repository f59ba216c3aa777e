"""Broken functions of the protocol, which `flaws` puts in place of the right ones."""

from . import consumer, parties, producer, roles
from .consumer import Consumer, strand_arm, strand_follow_reset
from .producer import Producer
from .ring import (
    ATTACHED,
    EOS,
    INITIALIZING,
    STREAMING,
    Ring,
    strand_low_water,
    strand_ring_every_bell,
)
from .steps import RELEASE, Program, fence, is_held, load, look, ring_bell, store, try_lock

right_init = producer.strand_producer_init
right_look_at_all = parties.look_at_all


def publish_and_clear(core: Producer) -> Program[None]:
    ring = core.ring
    before, core.commit = core.commit, core.write
    yield store(ring.at("producer.commit"), core.commit, RELEASE)
    yield fence()
    wanted = yield load(ring.entry(0, "threshold"))
    if before < wanted <= core.commit:
        yield store(ring.entry(0, "threshold"), 0)
        yield ring_bell(ring.consumer_bell(0))


def release_and_clear(core: Consumer, upto: int) -> Program[None]:
    ring, old = core.ring, core.read
    core.read = upto
    yield store(ring.entry(core.index, "read"), upto, RELEASE)
    yield fence()
    wanted = yield load(ring.at("producer.threshold"))
    if old < wanted <= upto:
        yield store(ring.at("producer.threshold"), 0)
        yield ring_bell(ring.at("producer.bell"))


def refresh_read_once(core: Producer) -> Program[None]:
    low_water = yield from strand_low_water(core.ring)
    if low_water > core.join_position:
        core.join_position = low_water
        yield store(core.ring.at("join_position"), low_water, RELEASE)
        yield fence()
    core.read = max(core.read, low_water)


def join_without_a_second_look(core: Consumer, start: int) -> Program[None]:
    yield from strand_follow_reset(core)
    yield from join_without_following(core, start)


def join_before_the_fence(core: Consumer, start: int) -> Program[None]:
    assert start == consumer.OLDEST
    first = yield from strand_low_water(core.ring)
    join_position = yield load(core.ring.at("join_position"))
    core.read = max(join_position, first)
    yield from consumer.show_attached(core, core.read)
    yield fence()
    yield ring_bell(core.ring.at("producer.bell"))


def join_without_following(core: Consumer, start: int) -> Program[None]:
    first = yield from consumer.find_start(core.ring, start)
    yield from consumer.enter(core, first)
    yield ring_bell(core.ring.at("producer.bell"))


def init_with_a_free_heap(core: Producer) -> Program[None]:
    yield from right_init(core)
    core.heap_end = [core.heap_write] * core.ring.capacity


def init_at_the_join_position(core: Producer) -> Program[None]:
    yield from right_init(core)
    core.read = core.join_position


def reset_generation_first(core: Producer) -> Program[None]:
    ring = core.ring
    core.generation += 1
    yield store(ring.at("generation"), core.generation, RELEASE)
    for index in range(ring.consumers):
        yield store(ring.entry(index, "read"), 0)
    yield store(ring.at("join_position"), 0)
    yield store(ring.at("producer.commit"), 0)
    yield store(ring.at("status"), INITIALIZING, RELEASE)
    yield from strand_ring_every_bell(ring)
    yield from producer.strand_producer_init(core)


def reset_without_locking_joiners(core: Producer) -> Program[bool]:
    for index in range(core.ring.consumers):
        state = yield load(core.ring.entry(index, "state"))
        if state == ATTACHED:
            unread = yield from roles.has_unread(core, index)
            if unread:
                return False
    yield from producer.strand_reset(core)
    return True


def committed_whenever(core: Consumer, threshold: int) -> Program[bool]:
    committed = yield load(core.ring.at("producer.commit"))
    return committed >= threshold


def look_before_the_lock(core: Consumer, _min_records: int = 1) -> Program[int]:
    came = yield from consumer.strand_consumer_wait(core, core.read + 1)
    if came:
        return roles.MORE
    committed = yield load(core.ring.at("producer.commit"))
    status = yield load(core.ring.at("status"))
    held = yield is_held(core.ring.at("producer.lock"))
    if committed > core.read:
        return roles.MORE
    if status == EOS:
        return roles.ENDED
    return roles.AGAIN if held else roles.DIED


def resume_silently(core: Producer) -> Program[bool]:
    ring, locked = core.ring, 0
    while not locked:
        locked = yield try_lock(ring.at("producer.lock"))
    status = yield load(ring.at("status"))
    yield from producer.strand_producer_init(core)
    return status == STREAMING


def wake_no_consumer(_core: Producer) -> Program[None]:
    yield from ()


def never(_subject: Consumer | Ring) -> Program[bool]:
    yield from ()
    return False


def arm_and_forget_the_bell(cores: list[Consumer]) -> Program[None]:
    for at in range(len(cores)):
        yield from strand_arm(cores[at], cores[at].read + 1)


def look_at_all_then_at_the_bell(cores: list[Consumer]) -> Program[tuple[bool, int]]:
    found, ended = yield from right_look_at_all(cores)
    yield look(cores[0].ring.doorbell)
    return found, ended
