"""The processes of a scenario, each from its beginning to its end."""

from collections.abc import Callable
from dataclasses import dataclass, field

from .consumer import (
    OLDEST,
    Consumer,
    has_committed,
    strand_acknowledge,
    strand_arm,
    strand_read_block,
)
from .explore import Verdict, World, explore
from .machine import Order, Process, Rewrite
from .producer import Producer
from .ring import ATTACHED, EOS, STREAMING, Ring, strand_set_status, strand_signal_abort
from .roles import (
    DIED,
    ENDED,
    FAILED,
    MORE,
    RESET,
    claim_entry,
    end_stream,
    lives,
    look_for_more,
    release_entry,
    resume,
    try_reset,
    write,
)
from .steps import Program, Step, load, look, nap, unlock

__all__ = [
    "Party",
    "canceller",
    "consumer",
    "fan_in",
    "joiner",
    "producer",
    "resetter",
    "run",
    "successor",
]


@dataclass(frozen=True)
class Party:
    """A process: its name, its program, and the kernel locks and words it begins with."""

    name: str
    program: Callable[[], Program[None]]
    locks: tuple[str, ...] = ()
    words: dict[str, int] = field(default_factory=dict)


def producer(ring: Ring, records: int, when_unread: str = "raise") -> Party:
    """Write some records and end the stream."""

    def program() -> Program[None]:
        core = Producer(ring)
        complete = yield from write(core, records, when_unread)
        yield from end_stream(core, complete)
        yield unlock(ring.at("producer.lock"))

    words = {ring.at("status"): STREAMING}
    return Party(f"{ring.name}producer", program, (ring.at("producer.lock"),), words)


def successor(
    ring: Ring, *streams: int, when_unread: str = "raise", words: dict[str, int] | None = None
) -> Party:
    """Resume the stream when its producer has died, and write the rest of it."""

    def program() -> Program[None]:
        core = Producer(ring)
        resumed = yield from resume(core)
        if resumed:
            complete = yield from write(core, streams[core.generation], when_unread)
            yield from end_stream(core, complete)
        yield unlock(ring.at("producer.lock"))

    return Party("successor", program, (), words or {})


def resetter(ring: Ring, first: int, second: int, when_unread: str = "raise") -> Party:
    """Write two streams, one after the other, into the same ring."""

    def program() -> Program[None]:
        core = Producer(ring)
        yield from write(core, first)
        yield from end_stream(core, complete=True)
        done = False
        while not done:
            done = yield from try_reset(core)
        yield from strand_set_status(ring, STREAMING)
        complete = yield from write(core, second, when_unread)
        yield from end_stream(core, complete)
        yield unlock(ring.at("producer.lock"))

    words = {ring.at("status"): STREAMING}
    return Party("producer", program, (ring.at("producer.lock"),), words)


def consumer(
    ring: Ring,
    index: int,
    *streams: int,
    from_record: int = 0,
    min_records: int = 1,
    leaves_after: int = 255,
    aborts: bool = False,
    patient: bool = False,
) -> Party:
    """Attached from the beginning: read everything, or leave before.

    Args:
        ring: what to read.
        index: the consumer entry.
        streams: how many records each stream has.
        from_record: its first position.
        min_records: how many more it waits for at once.
        leaves_after: how many records to read at most.
        aborts: it asks the producer to stop before it leaves.
        patient: it continues to wait when the producer is dead.
    """

    def program() -> Program[None]:
        core = Consumer(ring, index)
        core.read = from_record
        yield from read_on(core, streams, min_records, leaves_after, patient)
        if aborts:
            yield from strand_signal_abort(ring)
        yield from release_entry(core)

    words = {ring.entry(index, "state"): ATTACHED, ring.entry(index, "read"): from_record}
    return Party(f"consumer {index}", program, (ring.entry(index, "lock"),), words)


def joiner(
    ring: Ring, index: int, *streams: int, start: int = OLDEST, after: int | None = None
) -> Party:
    """Join at any time, and read what comes from there on.

    With `after`, check that nothing was left out that this other consumer had not read.
    """

    def program() -> Program[None]:
        core = Consumer(ring, index)
        yield from claim_entry(core, start)
        if after is not None:
            read = yield load(ring.entry(after, "read"))
            assert core.read <= read, f"it starts at {core.read}, consumer {after} read {read}"
        yield from read_on(core, streams, joins_later=True)
        yield from release_entry(core)

    return Party(f"joiner {index}", program)


def canceller(ring: Ring) -> Party:
    """Ask the producer to stop, at any time."""
    return Party("canceller", lambda: strand_signal_abort(ring))


def fan_in(rings: tuple[Ring, ...], records: tuple[int, ...]) -> Party:
    """Read several rings, asleep on one bell."""

    def program() -> Program[None]:
        cores = [Consumer(ring, 0) for ring in rings]
        ended = 0
        while ended != (1 << len(rings)) - 1:
            yield from arm_all(cores)
            found, ended = yield from look_at_all(cores)
            if not found and ended != (1 << len(rings)) - 1:
                yield nap(rings[0].doorbell)
        for at in range(len(rings)):
            assert cores[at].read == records[at], f"{cores[at].read} records of member {at}"
            yield from release_entry(cores[at])

    words = {ring.entry(0, "state"): ATTACHED for ring in rings}
    return Party("fan-in", program, tuple(ring.entry(0, "lock") for ring in rings), words)


def arm_all(cores: list[Consumer]) -> Program[None]:
    for at in range(len(cores)):
        yield from strand_arm(cores[at], cores[at].read + 1)
    yield look(cores[0].ring.doorbell)


def look_at_all(cores: list[Consumer]) -> Program[tuple[bool, int]]:
    """Read one record of each ring that has one; say whether any had, and which are over."""
    found, ended = False, 0
    for at in range(len(cores)):
        status = yield load(cores[at].ring.at("status"))
        ready = yield from has_committed(cores[at], cores[at].read + 1)
        if ready:
            found = True
            yield from read_one(cores[at])
        elif status == EOS:
            ended |= 1 << at
    return found, ended


def read_on(
    core: Consumer,
    streams: tuple[int, ...],
    min_records: int = 1,
    leaves_after: int = 255,
    patient: bool = False,
    joins_later: bool = False,
) -> Program[None]:
    """Read and release one record after the other, to the end of the last of `streams`."""
    while core.read < leaves_after:
        read, records = core.read, streams[core.generation]
        came = yield from look_for_more(core, min_records)
        if came == MORE:
            yield from read_one(core)
        elif came in (ENDED, RESET):
            over = False
            if came == ENDED:
                over = yield from is_last(core, streams)
            unbegun = core.ring.deaths and came == RESET and read == 0
            if over or not (
                joins_later or unbegun
            ):  # a consumer that joins during a reset may see any end
                assert read == records, f"the stream ended after {read} of {records} records"
            if over:
                return
        elif came == DIED and not patient:
            committed = yield load(core.ring.at("producer.commit"))
            assert core.read == committed, f"{core.read} of {committed} records were read"
            return
        elif came == FAILED:
            return


def is_last(core: Consumer, streams: tuple[int, ...]) -> Program[bool]:
    """Whether no stream comes after this one."""
    if core.generation + 1 == len(streams):
        return True
    held = yield from lives(core.ring, core.ring.at("producer.lock"))
    return not held


def read_one(core: Consumer) -> Program[None]:
    yield from strand_read_block(core, core.read)
    yield from strand_acknowledge(core, core.read + 1)


def keep(_function: str, step: Step) -> Step:
    return step


def run(
    *parties: Party, order: Order = Order.PSO, rewrite: Rewrite = keep, mortal: int | None = None
) -> Verdict:
    """Explore every interleaving of some parties, one of which may die at any step."""
    processes = [Process(party.name, party.program, order, rewrite) for party in parties]
    words: dict[str, int] = {}
    for pid, party in enumerate(parties):
        words |= party.words
        words |= dict.fromkeys(party.locks, pid + 1)
    return explore(World(processes, words, mortal))
