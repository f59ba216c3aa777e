"""The lock-free protocol in every interleaving, with naps that never end.

`model` holds the programs, function by function as in the C files, and the explorer: stores wait in
each process's buffer and drain as x86 (TSO) or a weaker machine (PSO) may drain them, and one
process may die between any two steps. No process waits for ever, and every consumer reads exactly
the records from its start on.
"""

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

import strand

from .model import consumer, machine, ring, scenarios
from .model.explore import Verdict
from .model.flaws import FLAWS, Flaw
from .model.machine import Order
from .model.parties import keep, run
from .model.scenarios import BIG, SCENARIOS, Cast
from .model.steps import RELEASE, Program, store

MODEL = Path(scenarios.__file__).parent
PROGRAMS = ("ring", "producer", "consumer", "roles", "parties", "broken")


def named(things: tuple[Callable[[], Cast], ...]) -> list[object]:
    return [pytest.param(thing, id=thing.__name__) for thing in things]


def explore(cast: Cast, order: Order = Order.PSO, rewrite: machine.Rewrite = keep) -> Verdict:
    return run(*cast.parties, mortal=cast.mortal, order=order, rewrite=rewrite)


# One of each kind of event, the fastest of its kind; the explorer needs up to a minute for others.
SOME = (
    scenarios.one_consumer,
    scenarios.payloads,
    scenarios.joining_in_the_entry_of_a_dead_one,
    scenarios.producer_dies,
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(
            scenario,
            id=scenario.__name__,
            marks=() if scenario in SOME else pytest.mark.nightly,
        )
        for scenario in SCENARIOS
    ],
)
def test_no_process_waits_for_ever_and_every_record_is_read(scenario: Callable[[], Cast]) -> None:
    verdict = explore(scenario())
    assert verdict.problem is None, verdict


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("scenario", named(BIG))
def test_nor_where_there_is_more_room(scenario: Callable[[], Cast]) -> None:
    verdict = explore(scenario())
    assert verdict.problem is None, verdict


@pytest.mark.sample(4)
@pytest.mark.parametrize("flaw", [pytest.param(flaw, id=flaw.name) for flaw in FLAWS])
def test_a_broken_protocol_is_found_out(flaw: Flaw, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, broken in flaw.replaced:
        monkeypatch.setattr(module, name, broken)
    verdict = explore(flaw.cast(), flaw.order, flaw.rewrite)
    assert flaw.problem in (verdict.problem or "nothing"), verdict


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    "flaw", [pytest.param(flaw, id=flaw.name) for flaw in FLAWS if flaw.order is Order.PSO]
)
def test_x86_forgives_a_missing_release(flaw: Flaw) -> None:
    assert not flaw.replaced
    assert explore(flaw.cast(), Order.TSO, flaw.rewrite).problem is None


@pytest.mark.slow
def test_a_joiner_may_show_its_state_before_its_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """What matters is that both are visible before it looks at the join position."""

    def show_attached(core: consumer.Consumer, first: int) -> Program[None]:
        yield store(core.ring.entry(core.index, "state"), ring.ATTACHED, RELEASE)
        yield store(core.ring.entry(core.index, "read"), first, RELEASE)

    monkeypatch.setattr(consumer, "show_attached", show_attached)
    assert explore(scenarios.next_one_after_a_leaver()).problem is None
    assert explore(scenarios.joining_in_the_entry_of_a_dead_one()).problem is None


@pytest.mark.slow
def test_a_verdict_has_the_steps_that_led_to_it() -> None:
    flaw = next(flaw for flaw in FLAWS if "rings no bell" in flaw.name)
    verdict = explore(flaw.cast(), flaw.order, flaw.rewrite)
    assert "deadlock" in str(verdict)
    assert any(line.startswith("consumer 0: nap") for line in verdict.trace)


@pytest.mark.parametrize("name", ["ring", "producer", "consumer"])
def test_programs_are_named_after_the_functions_they_model(name: str) -> None:
    sources = sorted(Path(strand.__file__).parent.glob("_ring*.c"))
    if not sources:
        pytest.skip("needs the package's sources")
    written = "".join(source.read_text() for source in sources)
    tree = ast.parse((MODEL / f"{name}.py").read_text())
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    modelled = [function for function in functions if function.startswith("strand_")]
    assert modelled
    assert [function for function in modelled if f" {function}(" not in written] == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_keep_everything_in_named_locals(name: str) -> None:
    """The machine compares locals: a value that waits between two yields would be overlooked."""
    tree = ast.parse((MODEL / f"{name}.py").read_text())
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Yield | ast.YieldFrom):
            assert isinstance(parents[node], ast.Expr | ast.Assign | ast.Return), node.lineno
        if isinstance(node, ast.For) and any(
            isinstance(inner, ast.Yield | ast.YieldFrom) for inner in ast.walk(node)
        ):
            assert isinstance(node.iter, ast.Call), node.lineno
            assert ast.unparse(node.iter.func) == "range", node.lineno
