"""Order inner joins by estimated cost, where the order of the result's rows is not observable.

For up to ten inputs every tree without cross products is costed, by dynamic programming over sets
of inputs (Selinger et al., "Access path selection in a relational database management system",
SIGMOD 1979; sets as bits: Vance and Maier, SIGMOD 1996); beyond that the two cheapest are joined
first, repeatedly (Moerkotte, "Building query compilers", chapter 3: greedy operator ordering). A
join costs the rows that it reads, those that it holds twice, and those that it produces: C_out plus
the cost of hashing. Join order never changes which rows are produced, only their order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from emsqrt.expr import Column, Expr, columns_of
from emsqrt.plan import Filter, Join, Plan, Project, Rename, check, inputs_of, with_inputs
from emsqrt.planner.ordering import order_seen
from emsqrt.planner.regions import NotPlain, Place, Region, Tree, is_region, place_of, read_region
from emsqrt.planner.sampling import SMALL_SAMPLE_BYTES
from emsqrt.planner.schemas import schemas_known, schemas_of
from emsqrt.planner.selectivity import selectivity
from emsqrt.planner.statistics import ColumnStats
from emsqrt.planner.substitution import conjunction, substitute
from emsqrt.planner.work import Flow, Hints, estimate_flow, match_rows
from sennit_core.schema import Schema

LEAVES_MIN = 3
LEAVES_MAX = 10
"""This many inputs have 59,049 pairs of sets."""
GAIN = 0.9
"""Another order must cost no more than this fraction of the written one."""
HELD = 2.0
"""Inserting a row into a hash table costs as much as reading this many."""


def order_joins(plan: Plan, folder: Path, hints: Hints | None = None) -> Plan:
    """Join three or more inputs in the cheapest order, where the rows' order is not observable.

    Args:
        plan: with its filters already pushed down.
        folder: base of relative paths.
        hints: statistics of sources; other files are inspected.
    """
    if not schemas_known(plan):
        return plan
    schemas = schemas_of(plan)
    made = _ordered(plan, order_seen(plan), _Measure(folder, hints, schemas))
    # A column that may not be NULL would become one that may.
    return made if made is plan or check(made) == schemas[id(plan)] else plan


@dataclass(frozen=True, slots=True)
class _Measure:
    """Estimates inputs, and holds the columns of every node."""

    folder: Path
    hints: Hints | None
    schemas: dict[int, Schema]

    def flow(self, plan: Plan) -> Flow:
        return estimate_flow(plan, self.hints, self.folder, sample_bytes=SMALL_SAMPLE_BYTES)


def _ordered(plan: Plan, seen: Sequence[bool], measure: _Measure) -> Plan:
    """Return the plan with each region's joins reordered; `seen` is for this subtree's nodes."""
    # The whole region is read from its topmost node.
    if not seen[-1] and is_region(plan, measure.schemas):
        region = read_region(plan, measure.schemas)
        if len(region.leaves) >= LEAVES_MIN:
            return _reordered(plan, region, measure)
    inputs = inputs_of(plan)
    made, start = [], 0
    for below in inputs:
        size = _size(below)
        made.append(_ordered(below, seen[start : start + size], measure))
        start += size
    same = all(one is other for one, other in zip(made, inputs, strict=True))
    return plan if same else with_inputs(plan, made)


def _size(plan: Plan) -> int:
    return 1 + sum(map(_size, inputs_of(plan)))


def _reordered(plan: Plan, region: Region, measure: _Measure) -> Plan:
    """Return a region's joins in the best order, after reordering regions in its inputs."""
    leaves = [_ordered(leaf, order_seen(leaf), measure) for leaf in region.leaves]
    try:
        graph = _Graph.of(region, [measure.flow(leaf) for leaf in leaves])
    except NotPlain:
        return plan
    written = graph.cost_of(region.tree)
    best = graph.best()
    if best is None or best.cost > GAIN * written.cost:
        return plan
    return _build(region, leaves, graph, best.tree)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A way to join a set of inputs."""

    tree: Tree
    cost: float


@dataclass(slots=True)
class _Graph:
    """The join graph: inputs, their equal columns, and estimates of every set of inputs.

    Args:
        flows: of each set that was estimated, as bits.
        keys: for each input the classes of its columns that other inputs have too.
        filters: (inputs, term) by the classes' names.
        names: of each column's class.
    """

    flows: dict[int, Flow]
    keys: list[frozenset[str]]
    filters: list[tuple[int, Expr]]
    names: dict[Place, str]
    _key_sets: dict[int, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, region: Region, flows: Sequence[Flow]) -> _Graph:
        names = region.names()
        own = [{names[at, name] for name in of.names} for at, of in enumerate(region.schemas)]
        keys = [
            frozenset(
                name
                for name in mine
                if any(name in other for place, other in enumerate(own) if place != at)
            )
            for at, mine in enumerate(own)
        ]
        filters = []
        for term in region.filters:
            places = {word: place_of(word) for word in columns_of(term)}
            inputs = sum({1 << at for at, _ in places.values()})
            made = {word: Column(names[place]) for word, place in places.items()}
            filters.append((inputs, substitute(term, made)))
        known = {
            1 << at: _renamed(flow, {name: names[at, name] for name in region.schemas[at].names})
            for at, flow in enumerate(flows)
        }
        return cls(known, keys, filters, names)

    @property
    def whole(self) -> int:
        """All inputs."""
        return (1 << len(self.keys)) - 1

    def shared(self, one: int, other: int) -> list[str]:
        """Return the classes that two sets of inputs have in common."""
        return sorted(self._keys_of(one) & self._keys_of(other))

    def _keys_of(self, inputs: int) -> frozenset[str]:
        if inputs not in self._key_sets:
            each = (keys for at, keys in enumerate(self.keys) if inputs >> at & 1)
            self._key_sets[inputs] = frozenset[str]().union(*each)
        return self._key_sets[inputs]

    def terms(self, one: int, other: int) -> list[Expr]:
        """Return the filters that need columns of both sets."""
        both = one | other
        return [
            term
            for inputs, term in self.filters
            if not inputs & ~both and inputs & ~one and inputs & ~other and inputs & (inputs - 1)
        ]

    def flow(self, one: int, other: int) -> Flow:
        """Return the estimate of two sets joined, computed once for each set."""
        if one | other not in self.flows:
            left, right = self.flows[one], self.flows[other]
            # A set's estimate does not depend on how it is joined, so it is computed once for all
            # trees.
            on = [(name, name) for name in self.shared(one, other)]
            columns = {**right.columns, **left.columns}
            for name, _ in on:
                # An equal column has at most the values of the side that has fewer.
                columns[name] = min((left.columns[name], right.columns[name]), key=_distinct)
            rows = match_rows(left, right, on)
            for term in self.terms(one, other):
                rows *= selectivity(term, columns)
            self.flows[one | other] = Flow(rows, columns)
        return self.flows[one | other]

    def joined(self, one: int, left: _Plan, other: int, right: _Plan) -> _Plan:
        """Return the join of two plans; the input with fewer bytes is held, as the right side."""
        out = self.flow(one, other)
        ours, theirs = self.flows[one], self.flows[other]
        if ours.rows * ours.row_bytes < theirs.rows * theirs.row_bytes:
            ours, theirs, left, right = theirs, ours, right, left
        cost = left.cost + right.cost + ours.rows + HELD * theirs.rows + out.rows
        return _Plan((left.tree, right.tree), cost)

    def cost_of(self, tree: Tree) -> _Plan:
        """Return the cost of joins in their written order."""
        return self._cost_of(tree)[1]

    def _cost_of(self, tree: Tree) -> tuple[int, _Plan]:
        if isinstance(tree, int):
            return 1 << tree, _Plan(tree, 0.0)
        (one, left), (other, right) = map(self._cost_of, tree)
        return one | other, self.joined(one, left, other, right)

    def best(self) -> _Plan | None:
        """Return the cheapest plan without cross products, None when there is none."""
        return self._by_sets() if len(self.keys) <= LEAVES_MAX else self._greedily()

    def _by_sets(self) -> _Plan | None:
        ways = {1 << at: _Plan(at, 0.0) for at in range(len(self.keys))}
        # Ascending numbers: every subset of a set is a smaller number, so its best plan is known.
        for inputs in range(1, self.whole + 1):
            for one in _parts(inputs):
                other = inputs ^ one
                if one in ways and other in ways and self.shared(one, other):
                    way = self.joined(one, ways[one], other, ways[other])
                    if inputs not in ways or way.cost < ways[inputs].cost:
                        ways[inputs] = way
        return ways.get(self.whole)

    def _greedily(self) -> _Plan | None:
        ways = {1 << at: _Plan(at, 0.0) for at in range(len(self.keys))}
        while len(ways) > 1:
            pairs = [
                (self.joined(one, ways[one], other, ways[other]), one, other)
                for one in ways
                for other in ways
                if one < other and self.shared(one, other)
            ]
            if not pairs:
                return None
            # The least of what each join adds to the cost of its inputs.
            way, one, other = min(
                pairs, key=lambda each: each[0].cost - ways[each[1]].cost - ways[each[2]].cost
            )
            del ways[one], ways[other]
            ways[one | other] = way
        return next(iter(ways.values()))


def _distinct(stats: ColumnStats) -> float:
    return math.inf if stats.distinct is None else stats.distinct


def _parts(inputs: int) -> Iterator[int]:
    """Yield one of each two sets that partition `inputs`: the one with its lowest bit."""
    # Subsets of a bit set in descending order: (part - 1) & rest. Holding the lowest bit in one
    # part yields each partition once.
    lowest = inputs & -inputs
    rest = inputs ^ lowest
    part = rest
    while part:
        part = (part - 1) & rest
        yield lowest | part


def _renamed(flow: Flow, names: dict[str, str]) -> Flow:
    columns: dict[str, ColumnStats] = {
        names[name]: stats for name, stats in flow.columns.items() if name in names
    }
    return replace(flow, columns=columns)


def _build(region: Region, leaves: Sequence[Plan], graph: _Graph, tree: Tree) -> Plan:
    """Return the joins as a plan with the columns and names of the written one."""

    def build(part: Tree) -> tuple[int, Plan]:
        if isinstance(part, int):
            names = region.schemas[part].names
            pairs = tuple((n, graph.names[part, n]) for n in names if graph.names[part, n] != n)
            leaf = leaves[part]
            return 1 << part, Rename(leaf, pairs) if pairs else leaf
        (one, left), (other, right) = map(build, part)
        made: Plan = Join(left, right, tuple((n, n) for n in graph.shared(one, other)))
        terms = graph.terms(one, other)
        return one | other, Filter(made, conjunction(terms)) if terms else made

    _, made = build(tree)
    # Terms over one input or none: joins apply those over two or more.
    alone = [term for inputs, term in graph.filters if not inputs & (inputs - 1)]
    made = Filter(made, conjunction(alone)) if alone else made
    output = region.output.items()
    return Project(made, tuple((name, Column(graph.names[place])) for name, place in output))
