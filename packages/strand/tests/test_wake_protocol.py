"""The sleep and wake protocol of `_ring.c`, checked in every interleaving, with naps that never end.

A small explicit-state model checker: two threads run the programs below, one instruction at a time,
over memory with x86's store buffers (TSO: a store may stay in its thread's buffer while later loads
go ahead; a fence, a read-modify-write and a system call drain it). It explores every order of steps
and buffer drains, and reports a state in which nobody can move although somebody is not done.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

CAPACITY, RECORDS = 2, 4
EOS = 2


class Thread(NamedTuple):
    at: int = 0
    registers: tuple[tuple[str, int], ...] = ()
    buffer: tuple[tuple[str, int], ...] = ()
    asleep_on: str | None = None


class State(NamedTuple):
    memory: tuple[tuple[str, int], ...]
    threads: tuple[Thread, ...]


Program = list[tuple[Any, ...]]


def producer(*, fence: bool = True, waker_clears: bool = False, final_bell: bool = True) -> Program:
    """strand_claim_slot, strand_producer_wait, strand_publish and strand_set_status."""
    return [
        ("label", "claim"),
        ("load", "read", "read"),
        ("if", lambda r: r["n"] - r["read"] < CAPACITY, "write"),
        ("store", "producer_threshold", lambda r: r["n"] + 1 - CAPACITY),
        *([("fence",)] if fence else []),
        ("load", "bell", "producer_bell"),
        ("load", "read", "read"),
        ("if", lambda r: r["read"] >= r["n"] + 1 - CAPACITY, "write"),
        ("sleep", "producer_bell", "bell"),
        ("if", lambda _: True, "claim"),
        ("label", "write"),
        ("store", lambda r: f"slot{r['n'] % CAPACITY}", lambda r: r["n"] + 1),
        ("set", "n", lambda r: r["n"] + 1),
        ("store", "commit", lambda r: r["n"]),
        *([("fence",)] if fence else []),
        ("load", "wanted", "consumer_threshold"),
        ("if", lambda r: not r["n"] - 1 < r["wanted"] <= r["n"], "next"),
        *([("store", "consumer_threshold", lambda _: 0)] if waker_clears else []),
        ("ring", "consumer_bell"),
        ("label", "next"),
        ("if", lambda r: r["n"] < RECORDS, "claim"),
        ("store", "status", lambda _: EOS),
        *([("ring", "consumer_bell")] if final_bell else []),
    ]


def consumer(*, fence: bool = True, waker_clears: bool = False) -> Program:
    """strand_consumer_wait, reading a slot, strand_acknowledge, until the end of the stream."""
    return [
        ("label", "wait"),
        ("load", "commit", "commit"),
        ("if", lambda r: r["commit"] > r["n"], "take"),
        ("store", "consumer_threshold", lambda r: r["n"] + 1),
        *([("fence",)] if fence else []),
        ("load", "bell", "consumer_bell"),
        ("load", "commit", "commit"),
        ("if", lambda r: r["commit"] > r["n"], "take"),
        ("load", "status", "status"),
        ("if", lambda r: r["status"] == EOS, "ended"),
        ("sleep", "consumer_bell", "bell"),
        ("if", lambda _: True, "wait"),
        ("label", "take"),
        ("load", "value", lambda r: f"slot{r['n'] % CAPACITY}"),
        ("assert", lambda r: r["value"] == r["n"] + 1),
        ("set", "n", lambda r: r["n"] + 1),
        ("store", "read", lambda r: r["n"]),
        *([("fence",)] if fence else []),
        ("load", "wanted", "producer_threshold"),
        ("if", lambda r: not r["n"] - 1 < r["wanted"] <= r["n"], "wait"),
        *([("store", "producer_threshold", lambda _: 0)] if waker_clears else []),
        ("ring", "producer_bell"),
        ("if", lambda _: True, "wait"),
        ("label", "ended"),
        ("load", "commit", "commit"),
        ("if", lambda r: r["commit"] > r["n"], "take"),
        ("assert", lambda r: r["n"] == RECORDS),
    ]


def test_nobody_sleeps_for_ever_and_every_record_is_read_once() -> None:
    assert explore(producer(), consumer()) is None


@pytest.mark.parametrize("side", ["producer", "consumer"])
def test_without_the_fence_a_wake_up_is_lost_even_on_x86(side: str) -> None:
    found = explore(
        producer(fence=side != "producer"),
        consumer(fence=side != "consumer"),
    )
    assert found == "deadlock"


@pytest.mark.parametrize("side", ["producer", "consumer"])
def test_a_waker_that_clears_the_threshold_loses_a_wake_up(side: str) -> None:
    found = explore(
        producer(waker_clears=side == "producer"),
        consumer(waker_clears=side == "consumer"),
    )
    assert found == "deadlock"


def test_an_end_of_stream_that_rings_no_bell_is_missed() -> None:
    assert explore(producer(final_bell=False), consumer()) == "deadlock"


def explore(*programs: Program) -> str | None:
    """Visit every reachable state; return what is wrong with the first bad one, or None."""
    labels = [{s[1]: at for at, s in enumerate(p) if s[0] == "label"} for p in programs]
    threads = [
        settle(Thread(registers=(("n", 0),)), program, at)
        for program, at in zip(programs, labels, strict=True)
    ]
    seen = {State((), tuple(threads))}
    todo = list(seen)
    while todo:
        state = todo.pop()
        try:
            following = list(successors(state, programs, labels))
        except AssertionError:
            return "wrong value"
        if not following and any(thread.at >= 0 for thread in state.threads):
            return "deadlock"
        fresh = [reached for reached in following if reached not in seen]
        seen.update(fresh)
        todo.extend(fresh)
    return None


def successors(
    state: State, programs: tuple[Program, ...], labels: list[dict[str, int]]
) -> Iterator[State]:
    """Every state one buffer drain or one shared instruction away."""
    for who, thread in enumerate(state.threads):
        if thread.buffer:
            (name, value), *rest = thread.buffer
            drained = {**dict(state.memory), name: value}
            yield replaced(state, who, drained, thread._replace(buffer=tuple(rest)))
        if thread.asleep_on is not None or thread.at < 0:
            continue
        instruction = programs[who][thread.at]
        if instruction[0] in ("fence", "ring", "sleep") and thread.buffer:
            continue  # drains first
        yield step(state, who, instruction, settle_for(programs[who], labels[who]))


def step(
    state: State, who: int, instruction: tuple[Any, ...], settled: Callable[[Thread], Thread]
) -> State:
    """Execute one instruction that touches shared memory, and the private ones behind it."""
    thread = state.threads[who]
    memory = dict(state.memory)
    registers = dict(thread.registers)
    kind, *operands = instruction
    done = thread._replace(at=thread.at + 1)
    if kind == "store":
        stored = (named(operands[0], registers), operands[1](registers))
        done = done._replace(buffer=(*thread.buffer, stored))
    elif kind == "load":
        name = named(operands[1], registers)
        registers[operands[0]] = {**memory, **dict(thread.buffer)}.get(name, 0)
        done = done._replace(registers=tuple(sorted(registers.items())))
    elif kind == "sleep" and memory.get(operands[0], 0) == registers[operands[1]]:
        done = done._replace(asleep_on=operands[0])
    elif kind == "ring":
        memory[operands[0]] = memory.get(operands[0], 0) + 1
        state = state._replace(threads=tuple(wake(t, operands[0]) for t in state.threads))
    return replaced(state, who, memory, settled(done))


def settle_for(program: Program, labels: dict[str, int]) -> Callable[[Thread], Thread]:
    return lambda thread: settle(thread, program, labels)


def settle(thread: Thread, program: Program, labels: dict[str, int]) -> Thread:
    """Run instructions that nobody else can see, up to the next shared one; -1 is the end."""
    registers = dict(thread.registers)
    at = thread.at
    while at < len(program) and program[at][0] in ("label", "if", "set", "assert"):
        kind, *operands = program[at]
        at += 1
        if kind == "set":
            registers[operands[0]] = operands[1](registers)
        elif kind == "if" and operands[0](registers):
            at = labels[operands[1]]
        elif kind == "assert":
            assert operands[0](registers)
    return thread._replace(
        at=at if at < len(program) else -1, registers=tuple(sorted(registers.items()))
    )


def named(name: str | Callable[[dict[str, int]], str], registers: dict[str, int]) -> str:
    return name if isinstance(name, str) else name(registers)


def wake(thread: Thread, bell: str) -> Thread:
    return thread._replace(asleep_on=None) if thread.asleep_on == bell else thread


def replaced(state: State, who: int, memory: dict[str, int], thread: Thread) -> State:
    threads = tuple(thread if at == who else other for at, other in enumerate(state.threads))
    return State(tuple(sorted(memory.items())), threads)
