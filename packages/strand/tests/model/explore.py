"""Visit every state that some processes over one memory can reach, and report violations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from .machine import Node, Order, Process, Violation
from .steps import PROCESS_DIED, RELEASE, Condition, Step

__all__ = ["Verdict", "World", "explore"]

MEMORY_BYTES = 48
BYTES = [bytes((value,)) for value in range(256)]
LOOKED, RUNG, ASLEEP, RUNG_IN_VAIN = range(4)
"""What a bell says: nothing since its owner looked; rung; its owner sleeps; its owner sleeps and
the ringing process died between the increment and the wake."""

State = tuple[Any, ...]  # the memory, then one Node for each process


class Move(NamedTuple):
    """What one process can do next, as far as the memory allows it."""

    what: str
    word: int  # its place in the memory
    value: int
    then: Any  # the Node it leads to; None where that depends on what is found
    step: Any


@dataclass
class Verdict:
    """What an exploration found; None: no problem in any of the states."""

    problem: str | None
    states: int
    trace: list[str]

    def __str__(self) -> str:
        return "\n".join([f"{self.problem} ({self.states} states)", *self.trace])


class World:
    """Some processes over one memory, of which one may die at any step."""

    def __init__(
        self, processes: Sequence[Process], initial: dict[str, int], mortal: int | None
    ) -> None:
        self.processes = processes
        self._mortal = mortal
        self._words: dict[str, int] = {}
        self._moves: list[dict[Node, list[Move]]] = [{} for _ in processes]
        memory = bytearray(MEMORY_BYTES)
        for word, value in initial.items():
            memory[self._at(word)] = value
        self.start: State = (bytes(memory), *(process.start for process in processes))

    def following(self, state: State) -> Iterator[tuple[int, Move, State]]:
        """Yield every state one drain, one step or one death away, and what leads there."""
        memory: bytes = state[0]
        for pid, known in enumerate(self._moves):
            node: Node = state[pid + 1]
            moves = known.get(node)
            if moves is None:
                moves = known[node] = list(self._find_moves(pid, node))
            for move in moves:
                reached = self._apply(pid, node, move, memory)
                if reached is not None:
                    yield (
                        pid,
                        move,
                        (reached[0], *state[1 : pid + 1], reached[1], *state[pid + 2 :]),
                    )

    def finished(self, state: State) -> bool:
        """Whether every process has ended, or died."""
        return all(node.step is None and not node.buffer for node in state[1:])

    def _find_moves(self, pid: int, node: Node) -> Iterator[Move]:
        for at in node.drains:
            pending = node.buffer[at]
            what = "set" if pending.kind == "store" else "check"
            then = self.processes[pid].drain(node, at)
            yield Move(what, self._at(pending.word), pending.value, then, pending)
        if node.step is not None:
            yield from self._find_step(pid, node, node.step)
        if pid == self._mortal and node.step is not None and node.step.kind != "exit":
            yield Move("go", 0, 0, self.processes[pid].kill(node), "dies")

    def _find_step(self, pid: int, node: Node, step: Step) -> Iterator[Move]:
        word = self._at(step.word)
        go_on = self.processes[pid].step_on
        if step.kind == "load" and (own := node.forwarded(step.word)) is not None:
            yield Move("go", word, 0, go_on(node, own), step)
        elif step.kind in ("load", "lock"):
            yield Move(step.kind, word, pid + 1, None, step)
        elif step.kind == "check":
            yield Move("check", word, step.value, go_on(node, 0), step)
        elif step.kind == "look":
            yield Move("set", word, LOOKED, go_on(node, 0), step)
        elif step.kind == "ring" and not (node.buffer and self._drains_first(pid, step)):
            yield Move("set", word, RUNG, go_on(node, 0), step)
            if pid == self._mortal:
                yield Move("half ring", word, 0, self.processes[pid].kill(node), "dies ringing")
        elif step.kind == "exchange":
            what = "differs" if node.buffer else "exchange"
            yield Move(what, word, step.value, go_on(node, 0), step)
        elif not node.buffer:
            yield from self._find_call(pid, node, step)

    def _find_call(self, pid: int, node: Node, step: Step) -> Iterator[Move]:
        """Find what a system call can do: before it, everything has drained."""
        word = self._at(step.word)
        if step.kind == "exit":
            yield Move("exit", word, 0, self.processes[pid].dead, step)
            return
        after = self.processes[pid].step_on(node, 0)
        if step.kind == "unlock":
            yield Move("set", word, 0, after, step)
        elif step.kind == "nap":
            yield Move("sleep", word, 0, node, step)
            yield Move("wake", word, 0, after, step)

    def _drains_first(self, pid: int, step: Step) -> bool:
        """Whether an atomic increment waits for the stores before it; on x86 each of them does."""
        return step.order == RELEASE or self.processes[pid].order is Order.TSO

    def _apply(self, pid: int, node: Node, move: Move, memory: bytes) -> tuple[bytes, Node] | None:
        """Return the memory after a move and the process's state, or None: it cannot move."""
        what, index, value, then, step = move
        found = memory[index]
        if what == "load":
            return memory, node.after.get(found) or self.processes[pid].step_on(node, found)
        if what == "set":
            return memory[:index] + BYTES[value] + memory[index + 1 :], then
        if what == "check":
            if found != value:
                raise Violation(f"{self.processes[pid].name} found {found}: {step}")
            return memory, then
        if what == "go":
            return memory, then
        if what in ("sleep", "wake"):
            return self._apply_nap(move, memory)
        if what == "lock":
            changed = memory if found else with_value(memory, index, value)
            return changed, self.processes[pid].step_on(node, int(not found))
        return self._apply_rarely(pid, move, memory)

    def _apply_rarely(self, pid: int, move: Move, memory: bytes) -> tuple[bytes, Node] | None:
        what, index, value, then, step = move
        found = memory[index]
        if what == "exchange":
            return with_value(memory, index, step.instead) if found == value else memory, then
        if what == "differs":
            return None if found == value else (memory, then)
        if what == "half ring":
            return with_value(memory, index, RUNG_IN_VAIN if found >= ASLEEP else RUNG), then
        assert what == "exit", what
        return self._without_locks(pid, memory), then

    def _apply_nap(self, move: Move, memory: bytes) -> tuple[bytes, Node] | None:
        """Fall asleep on a bell that was not rung since the look; wake when it was, or at a death."""
        found = memory[move.word]
        if move.what == "sleep":
            return (with_value(memory, move.word, ASLEEP), move.then) if found == LOOKED else None
        wakes = found == RUNG or (found != LOOKED and self._holds_any(memory, move.step.unless))
        return (memory, move.then) if wakes else None

    def _without_locks(self, pid: int, memory: bytes) -> bytes:
        """Let the kernel drop the locks of the dead process."""
        for word, index in self._words.items():
            if word.endswith(".lock") and memory[index] == pid + 1:
                memory = with_value(memory, index, 0)
        return with_value(memory, self._at(PROCESS_DIED), 1)

    def _holds_any(self, memory: bytes, conditions: tuple[Condition, ...]) -> bool:
        return any(
            all(memory[self._at(word)] == value for word, value in condition)
            for condition in conditions
        )

    def _at(self, word: str) -> int:
        return self._words.setdefault(word, len(self._words))


def explore(world: World) -> Verdict:
    """Search for a violation, for a state that nothing leads out of, and for one that nothing leads
    out of to the end: a process would wait, or try again, for ever."""
    numbers = {world.start: 0}
    states = [world.start]
    came_from = [0]
    leads_to: list[list[int]] = []
    problem = None
    for at, state in enumerate(states):  # grows as we go
        reached = []
        try:
            for _, _, found in world.following(state):
                number = numbers.setdefault(found, len(states))
                if number == len(states):
                    states.append(found)
                    came_from.append(at)
                reached.append(number)
        except Violation as violation:
            problem = str(violation)
        if problem is None and not reached and not world.finished(state):
            problem = "deadlock"
        if problem is not None:
            return Verdict(problem, len(states), trace(world, states, came_from, at))
        leads_to.append(reached)
    stuck = find_endless(leads_to, [world.finished(state) for state in states])
    if stuck is not None:
        return Verdict("runs for ever", len(states), trace(world, states, came_from, stuck))
    return Verdict(None, len(states), [])


def find_endless(leads_to: list[list[int]], finished: list[bool]) -> int | None:
    """Return a state from which the end cannot be reached, if there is one."""
    comes_from: list[list[int]] = [[] for _ in leads_to]
    for at, reached in enumerate(leads_to):
        for number in reached:
            comes_from[number].append(at)
    hopeful = list(finished)
    todo = [at for at, ends in enumerate(finished) if ends]
    while todo:
        for before in comes_from[todo.pop()]:
            if not hopeful[before]:
                hopeful[before] = True
                todo.append(before)
    return hopeful.index(False) if False in hopeful else None


def trace(world: World, states: list[State], came_from: list[int], last: int) -> list[str]:
    """List the steps that led to a state."""
    path = [last]
    while path[-1] != 0:
        path.append(came_from[path[-1]])
    path.reverse()
    lines = []
    for before, after in pairwise(path):
        for pid, move, reached in world.following(states[before]):
            if reached == states[after]:
                lines.append(f"{world.processes[pid].name}: {move.step}".rstrip())
                break
    return lines


def with_value(memory: bytes, index: int, value: int) -> bytes:
    return memory[:index] + BYTES[value] + memory[index + 1 :]
