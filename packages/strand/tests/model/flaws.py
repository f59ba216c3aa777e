"""Known-bad variants of the protocol: each breaks one step of it, and must be found.

Most of them passed ordinary tests once, here or in other projects: a nap that ends after 150 ms
hides what they do, and x86 hides some of the rest.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from . import broken, consumer, parties, producer, roles, scenarios
from .machine import Order, Rewrite
from .parties import keep
from .scenarios import Cast
from .steps import RELAXED, Step

__all__ = ["FLAWS", "Flaw"]

DEADLOCK, TORN = "deadlock", "found"


class Flaw(NamedTuple):
    """A broken variant, where it shows, and what it looks like.

    Attributes:
        name: what is wrong.
        cast: the scenario that finds it.
        problem: part of what the explorer says.
        rewrite: steps dropped or weakened.
        replaced: functions by module and name, with a broken one instead.
        order: the strongest memory model under which it is found.
    """

    name: str
    cast: Callable[[], Cast]
    problem: str
    rewrite: Rewrite = keep
    replaced: tuple[tuple[Any, str, Callable[..., Any]], ...] = ()
    order: Order = Order.TSO


def without(function: str, kind: str, word: str = "") -> Rewrite:
    """Leave a step of a function out."""

    def rewrite(where: str, step: Step) -> Step | None:
        found = where == function and step.kind == kind and step.word.endswith(word)
        return None if found else step

    return rewrite


def relaxed(function: str, kind: str, word: str) -> Rewrite:
    """Drop the release order from a step of a function."""

    def rewrite(where: str, step: Step) -> Step | None:
        found = where == function and step.kind == kind and step.word.endswith(word)
        return step._replace(order=RELAXED) if found else step

    return rewrite


SLEEP_AND_WAKE = (
    Flaw(
        "the commit is stored without release",
        scenarios.one_consumer,
        TORN,
        relaxed("strand_publish", "store", "producer.commit"),
        order=Order.PSO,
    ),
    Flaw(
        "records are released without release order",
        scenarios.payloads,
        TORN,
        relaxed("advance_read", "store", ".read"),
        order=Order.PSO,
    ),
    Flaw(
        "a bell is rung before its cause is visible",
        scenarios.one_consumer,
        DEADLOCK,
        relaxed("strand_ring_every_bell", "ring", ".bell"),
        order=Order.PSO,
    ),
    *(
        Flaw(
            f"no fence in {function}",
            scenarios.one_consumer,
            DEADLOCK,
            without(function, "fence"),
        )
        for function in ("strand_publish", "strand_arm", "advance_read", "strand_producer_arm")
    ),
    Flaw(
        "the producer clears the threshold it wakes",
        scenarios.one_consumer,
        DEADLOCK,
        replaced=((producer, "strand_publish", broken.publish_and_clear),),
    ),
    Flaw(
        "the consumer clears the threshold it wakes",
        scenarios.one_consumer,
        DEADLOCK,
        replaced=((consumer, "advance_read", broken.release_and_clear),),
    ),
    Flaw(
        "the end of the stream rings no bell",
        scenarios.one_consumer,
        DEADLOCK,
        without("strand_ring_every_bell", "ring"),
    ),
    Flaw(
        "a producer short of heap lets patient consumers sleep",
        scenarios.payloads_fill_the_heap_first,
        DEADLOCK,
        replaced=((producer, "wake_waiting_consumers", broken.wake_no_consumer),),
    ),
    Flaw(
        "a patient consumer does not see that the producer waits",
        scenarios.payloads_fill_the_heap_first,
        DEADLOCK,
        replaced=((consumer, "producer_waits", broken.never),),
    ),
    Flaw(
        "the bell of a fan-in is looked at after its rings",
        scenarios.fanning_in,
        DEADLOCK,
        replaced=(
            (parties, "arm_all", broken.arm_and_forget_the_bell),
            (parties, "look_at_all", broken.look_at_all_then_at_the_bell),
        ),
    ),
)

JOINING_AND_LEAVING = (
    Flaw(
        "a joiner does not look at the join position",
        scenarios.joining_at_the_oldest,
        TORN,
        without("enter", "load", "join_position"),
    ),
    Flaw(
        "a joiner looks at the join position before it shows itself",
        scenarios.joining_at_the_oldest,
        TORN,
        replaced=((roles, "strand_join", broken.join_before_the_fence),),
    ),
    Flaw(
        "no fence before a joiner looks at the join position",
        scenarios.joining_at_the_oldest,
        TORN,
        without("enter", "fence"),
    ),
    Flaw(
        "the producer does not look again after it published the join position",
        scenarios.joining_at_the_oldest,
        TORN,
        replaced=((producer, "refresh_read", broken.refresh_read_once),),
    ),
    Flaw(
        "no fence before the producer looks again",
        scenarios.joining_at_the_oldest,
        TORN,
        without("refresh_read", "fence"),
    ),
    Flaw(
        "joining rings no bell",
        scenarios.first_consumer_wants_the_next,
        DEADLOCK,
        without("strand_join", "ring"),
    ),
    Flaw(
        "leaving rings no bell",
        scenarios.one_of_two_leaves,
        DEADLOCK,
        without("strand_mark_left", "ring"),
    ),
    Flaw(
        "no check that all consumers have left before the nap",
        scenarios.the_only_consumer_leaves,
        DEADLOCK,
        replaced=((producer, "strand_is_abandoned", broken.never),),
    ),
)

DEATHS_AND_RESETS = (
    Flaw(
        "a consumer that finds the producer dead does not read its last records",
        scenarios.producer_dies,
        "records were read",
        replaced=((parties, "look_for_more", broken.look_before_the_lock),),
    ),
    Flaw(
        "a resuming producer rings no bell",
        scenarios.resuming_a_stream,
        DEADLOCK,
        replaced=((parties, "resume", broken.resume_silently),),
    ),
    Flaw(
        "a resuming producer forgets the owner of the heap",
        scenarios.resuming_a_stream,
        TORN,
        replaced=((roles, "strand_producer_init", broken.init_with_a_free_heap),),
    ),
    Flaw(
        "a resuming producer overwrites up to the join position",
        scenarios.resuming_below_the_join_position,
        TORN,
        replaced=((roles, "strand_producer_init", broken.init_at_the_join_position),),
    ),
    Flaw(
        "the generation changes before the counters",
        scenarios.resetting,
        TORN,
        replaced=((roles, "strand_reset", broken.reset_generation_first),),
    ),
    Flaw(
        "a reset shows positions of the new stream with the count of the old",
        scenarios.resetting_while_one_leaves_and_one_joins,
        TORN,
        relaxed("strand_reset", "store", ".read"),
        order=Order.PSO,
    ),
    Flaw(
        "a reset misses a consumer that joined meanwhile",
        scenarios.resetting_while_one_leaves_and_one_joins,
        TORN,
        without("strand_reset", "fence"),
    ),
    Flaw(
        "a wait does not look at the generation",
        scenarios.resetting,
        TORN,
        replaced=((consumer, "has_committed", broken.committed_whenever),),
    ),
    Flaw(
        "a reset does not keep joiners out",
        scenarios.resetting_while_one_joins,
        TORN,
        replaced=((parties, "try_reset", broken.reset_without_locking_joiners),),
    ),
    Flaw(
        "a joiner does not look whether the stream is another now",
        scenarios.resetting_while_one_joins,
        TORN,
        replaced=((roles, "strand_join", broken.join_without_a_second_look),),
    ),
    Flaw(
        "a view that joins believes in the stream it was opened on",
        scenarios.joining_with_an_old_view,
        TORN,
        replaced=((roles, "strand_join", broken.join_without_following),),
    ),
)

FLAWS = SLEEP_AND_WAKE + JOINING_AND_LEAVING + DEATHS_AND_RESETS
