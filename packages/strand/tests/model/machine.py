"""A process: a program, compiled step by step into a table, and the stores it has not drained.

Two states of a program with equal positions and equal locals are the same point, by any history.
Each is found once, by running the generator through one history that leads there; from
then on the explorer only follows the table.
"""

from collections.abc import Callable
from enum import Enum
from types import GeneratorType
from typing import Any, NamedTuple

from .steps import RELEASE, Program, Step

__all__ = ["Node", "Order", "Pending", "Process", "Rewrite", "Violation"]

Rewrite = Callable[[str, Step], Step | None]
"""Replace or drop (None; its result is 0) a step of the function with that name."""


class Violation(Exception):
    """A program found something that must not be."""


class Order(Enum):
    """A memory model: which stores others may see with a delay, and in what order."""

    TSO = "x86: stores drain in program order"
    PSO = "only a release waits for what precedes it, and plain reads may be delayed, too"


class Pending(NamedTuple):
    """A store not yet visible to others or, under PSO, a plain read that is not over yet."""

    kind: str
    word: str
    value: int
    order: str

    def __str__(self) -> str:
        return f"{self.kind} {self.word} = {self.value} is seen by all"


class Point:
    """The position of a program between two steps, and one history of results that leads there."""

    __slots__ = ("following", "history", "step")

    def __init__(self, history: tuple[int, ...], step: Step | None) -> None:
        self.history = history
        self.step = step  # None: the program has ended
        self.following: dict[int, Point] = {}


class Node:
    """A state of a process: a point of its program, and its buffer in program order."""

    __slots__ = ("after", "buffer", "drained", "drains", "point", "step")

    def __init__(self, point: Point, buffer: tuple[Pending, ...], drains: tuple[int, ...]) -> None:
        self.point = point
        self.step = point.step
        self.buffer = buffer
        self.drains = drains  # what of the buffer may become visible next
        self.after: dict[int, Node] = {}
        self.drained: dict[int, Node] = {}

    def forwarded(self, word: str) -> int | None:
        """Return the process's own newest store to `word` that is still in the buffer."""
        for pending in reversed(self.buffer):
            if pending.word == word and pending.kind == "store":
                return pending.value
        return None


class Process:
    """A process under a memory model; the same state is always the same Node."""

    def __init__(
        self, name: str, program: Callable[[], Program[None]], order: Order, rewrite: Rewrite
    ) -> None:
        self.name = name
        self._program = program
        self.order = order
        self._rewrite = rewrite
        self._points: dict[Any, Point] = {}
        self._nodes: dict[Any, Node] = {}
        self.start = self._settle(self._replay(()), ())
        self.dead = Node(Point((), None), (), ())
        self._dying = Point((), Step("exit"))

    def step_on(self, node: Node, result: int) -> Node:
        """Follow the result of the node's step."""
        if result not in node.after:
            node.after[result] = self._settle(self._follow(node.point, result), node.buffer)
        return node.after[result]

    def drain(self, node: Node, at: int) -> Node:
        """Remove one entry from the buffer."""
        if at not in node.drained:
            left = node.buffer[:at] + node.buffer[at + 1 :]
            node.drained[at] = self._settle(node.point, left)
        return node.drained[at]

    def kill(self, node: Node) -> Node:
        """Stop it where it is: its stores still drain, then the kernel drops its locks."""
        return self._settle(
            self._dying, tuple(left for left in node.buffer if left.kind == "store")
        )

    def _settle(self, point: Point, buffer: tuple[Pending, ...]) -> Node:
        """Run the steps that other processes cannot observe, up to the next one that they can."""
        while (step := point.step) is not None:
            delayed = self.order is Order.PSO and step.kind == "check"
            if step.kind == "store" or delayed:
                buffer = (*buffer, Pending(step.kind, step.word, step.value, step.order))
            elif step.kind != "fence" or buffer:
                break
            point = self._follow(point, 0)
        key = (point, buffer)
        if key not in self._nodes:
            self._nodes[key] = Node(point, buffer, tuple(self._find_drains(buffer)))
        return self._nodes[key]

    def _find_drains(self, buffer: tuple[Pending, ...]) -> list[int]:
        if self.order is Order.TSO:
            return [0] if buffer else []
        return [
            at
            for at, pending in enumerate(buffer)
            if at == 0
            or (
                pending.order != RELEASE
                and all(earlier.word != pending.word for earlier in buffer[:at])
            )
        ]

    def _follow(self, point: Point, result: int) -> Point:
        if result not in point.following:
            point.following[result] = self._replay((*point.history, result))
        return point.following[result]

    def _replay(self, history: tuple[int, ...]) -> Point:
        """Run the program through `history`, and on to its next step."""
        running = self._program()
        results = list(history)
        try:
            step = next(running)
            for result in history:
                step = running.send(result)
            while (kept := self._rewrite(innermost(running), step)) is None:
                results.append(0)
                step = running.send(0)
        except StopIteration:
            key, kept = None, None
        except AssertionError as error:
            raise Violation(f"{self.name}: {error}") from None
        else:
            key = freeze(running)
        if key not in self._points:
            self._points[key] = Point(tuple(results), kept)
        running.close()
        return self._points[key]


def innermost(running: Any) -> str:
    """Name the function that a suspended program is in."""
    while isinstance(running.gi_yieldfrom, GeneratorType):
        running = running.gi_yieldfrom
    return str(running.gi_code.co_name)


def freeze(running: Any) -> tuple[Any, ...]:
    """Return the key of the state of a suspended program."""
    frames = []
    while isinstance(running, GeneratorType):
        frame: Any = running.gi_frame
        known = tuple((name, freeze_value(value)) for name, value in frame.f_locals.items())
        frames.append((frame.f_code, frame.f_lasti, known))
        running = running.gi_yieldfrom
    return tuple(frames)


def freeze_value(value: Any) -> Any:
    """Return something hashable with the same contents; objects count by their attributes."""
    if isinstance(value, list | tuple):
        return tuple(freeze_value(part) for part in value)
    if hasattr(value, "__dict__") and not callable(value):
        return type(value), freeze_value(tuple(vars(value).values()))
    return value
