"""Tables: peers take turns in every round; best and median, CPU seconds, ratios, targets."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from strand_peers.measure import Figure, Job, Transport, guarded, run_transport

__all__ = ["Options", "Row", "Table", "Target", "print_summary", "run_table", "transport_row"]


@dataclass(frozen=True)
class Target:
    """What a row of ours is to reach: a figure, and a ratio to a peer (None: to the best)."""

    figure: float | None = None
    ratio: float | None = None
    to: str | None = None


@dataclass(frozen=True)
class Row:
    """One peer in a table. `kind` is ours, peer, or limit (what no transport can pass)."""

    name: str
    run: Callable[[], Figure]
    kind: str = "peer"
    target: Target | None = None


def transport_row(
    name: str,
    transport: Callable[[], Transport],
    job: Callable[[], Job],
    target: Target | None = None,
) -> Row:
    """A row that carries a job; ours when its name starts with `strand`."""
    kind = "ours" if name.startswith("strand") else "peer"
    return Row(name, lambda: run_transport(transport(), job()), kind, target)


@dataclass(frozen=True)
class Table:
    """Rows that do the same work. Values are in `unit` / `scale`; CPU is for `scale` of the work."""

    key: str
    title: str
    unit: str
    rows: Sequence[Row]
    scale: float = 1e6
    cpu_unit: str = "CPU s/M"
    less_is_better: bool = False


@dataclass(frozen=True)
class Options:
    """How to run."""

    repeats: int = 3
    limit_seconds: float = 60
    peers: tuple[str, ...] = ()

    def wants(self, row: Row) -> bool:
        """Whether the row is asked for; ours and limits always are, unless nothing of them is."""
        named = [part for part in self.peers if part.lower() in row.name.lower()]
        return not self.peers or bool(named)


@dataclass
class Outcome:
    """What a row's runs gave."""

    row: Row
    figures: list[Figure] = field(default_factory=list)
    trouble: str = ""

    def best(self, table: Table) -> float:
        """The best value of the runs."""
        choose = min if table.less_is_better else max
        return choose(figure.value for figure in self.figures)

    def to_json(self, table: Table) -> dict[str, Any]:
        """Return plain values, unscaled."""
        return {
            "table": table.key,
            "name": self.row.name,
            "kind": self.row.kind,
            "values": [figure.value for figure in self.figures],
            "cpu_seconds": [figure.cpu_seconds for figure in self.figures],
            "work": self.figures[0].work if self.figures else 0,
            "notes": [figure.note for figure in self.figures],
            "trouble": self.trouble,
        }


def run_table(table: Table, options: Options) -> list[Outcome]:
    """Measure and print one table; a row that fails once is not tried again."""
    outcomes = [Outcome(row) for row in table.rows if options.wants(row)]
    if not outcomes:
        return []
    print(f"\n{table.title}   [load {os.getloadavg()[0]:.1f}]")
    for _ in range(options.repeats):
        for outcome in outcomes:
            if outcome.trouble:
                continue
            answer = guarded(outcome.row.run, options.limit_seconds)
            if isinstance(answer, str):
                outcome.trouble = answer
            else:
                outcome.figures.append(answer)
    against = _best_peer(table, outcomes)
    ratio = f"x {against.row.name}" if against else ""
    print(f"  {'':<34}{table.unit:>12}{'median':>10}{table.cpu_unit:>12}  {ratio}")
    for outcome in outcomes:
        print(_line(table, outcome, against), flush=True)
    return outcomes


def print_summary(results: Sequence[tuple[Table, list[Outcome]]]) -> None:
    """Say of every target whether this run reached it."""
    lines = [line for table, outcomes in results for line in _verdicts(table, outcomes)]
    if lines:
        print(f"\n{'targets':<52}{'reached':>10}{'target':>10}{'ratio':>8}{'target':>8}")
        print("\n".join(lines))


def _line(table: Table, outcome: Outcome, against: Outcome | None) -> str:
    name = ("* " if outcome.row.kind == "ours" else "  ") + outcome.row.name
    if not outcome.figures:
        return f"{name:<36}{'-':>12}  {outcome.trouble}"
    best = outcome.best(table)
    median = statistics.median(figure.value for figure in outcome.figures)
    cpu = min(figure.cpu_seconds / figure.work for figure in outcome.figures) * table.scale
    ratio = f"{_ratio(table, best, against):>8.2f}" if against else ""
    note = outcome.figures[0].note or (f"then: {outcome.trouble}" if outcome.trouble else "")
    return (
        f"{name:<36}{_number(best / table.scale):>12}{_number(median / table.scale):>10}"
        f"{cpu:>12.3f}{ratio}  {note}"
    ).rstrip()


def _verdicts(table: Table, outcomes: list[Outcome]) -> list[str]:
    lines = []
    for outcome in outcomes:
        target = outcome.row.target
        if target is None or not outcome.figures:
            continue
        best = outcome.best(table)
        cells = f"{table.key + ': ' + outcome.row.name:<52}{_number(best / table.scale):>10}"
        goals = []
        wanted = target.figure
        cells += f"{_number(wanted) if wanted is not None else '':>10}"
        if wanted is not None:
            shown = best / table.scale
            goals.append(shown <= wanted if table.less_is_better else shown >= wanted)
        against = _named(outcomes, target.to) if target.to else _best_peer(table, outcomes)
        if target.ratio is not None and against is not None:
            ratio = _ratio(table, best, against)
            goals.append(ratio >= target.ratio)
            cells += f"{ratio:>8.2f}{target.ratio:>8.2f}"
        else:
            cells += " " * 16
        lines.append(f"{cells}  {'yes' if all(goals) else 'NO'}")
    return lines


def _ratio(table: Table, best: float, against: Outcome) -> float:
    other = against.best(table)
    return other / best if table.less_is_better else best / other


def _best_peer(table: Table, outcomes: list[Outcome]) -> Outcome | None:
    peers = [o for o in outcomes if o.row.kind == "peer" and o.figures]
    choose = min if table.less_is_better else max
    return choose(peers, key=lambda outcome: outcome.best(table)) if peers else None


def _named(outcomes: list[Outcome], name: str) -> Outcome | None:
    return next((o for o in outcomes if o.row.name == name and o.figures), None)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value < 100 else f"{value:.0f}"
