"""Adjacent inner joins in a canonical form: inputs, equal columns, filters, outputs.

Between the joins there may be nodes that only rename columns, and filters that cannot fail. Columns
of different inputs that are equal by the joins' keys form one class, which has one name throughout.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from emsqrt.expr import Call, Column, Expr, columns_of
from emsqrt.expr.check import bind
from emsqrt.plan import Filter, Join, Plan, Project, Rename
from emsqrt.plan.joining import join_key_types, right_names
from emsqrt.planner.substitution import conjuncts, substitute
from sennit_core.schema import Schema

Schemas = dict[int, Schema]
Place = tuple[int, str]
"""A column of an input: the input's index, and its name there."""


Tree: TypeAlias = "int | tuple[Tree, Tree]"
"""Joins as a leaf's number, or a pair of joined trees."""


class NotPlain(Exception):
    """These joins have no canonical form, so their order is kept."""


@dataclass(slots=True)
class Region:
    """Inner joins in canonical form.

    Args:
        leaves: the inputs, from left to right.
        tree: the joins as written: a leaf's number, or a pair.
        filters: terms over names made by `spell`.
        output: (name, column) of each output column, in order.
        schemas: of the leaves.
    """

    leaves: list[Plan] = field(default_factory=list)
    tree: Tree = 0
    filters: list[Expr] = field(default_factory=list)
    output: dict[str, Place] = field(default_factory=dict)
    schemas: list[Schema] = field(default_factory=list)
    _same: dict[Place, Place] = field(default_factory=dict)

    def root(self, place: Place) -> Place:
        """Return the column that represents its class."""
        while place in self._same:
            place = self._same[place]
        return place

    def unite(self, one: Place, other: Place) -> None:
        """Record that two columns are equal."""
        one, other = self.root(one), self.root(other)
        if one != other:
            # Union-find; the leftmost column represents its class, so names do not depend on the
            # order of joins.
            self._same[max(one, other)] = min(one, other)

    def names(self) -> dict[Place, str]:
        """Return the name of each column's class.

        Raises:
            NotPlain: two columns of one input are in one class.
        """
        places = [(at, name) for at, of in enumerate(self.schemas) for name in of.names]
        used: dict[str, Place] = {}
        found: dict[Place, str] = {}
        for place in places:
            root = self.root(place)
            if root not in found:
                name = root[1]
                # Two classes with the same name are different columns: one of them gets
                # underscores.
                while used.setdefault(name, root) != root:
                    name += "_"
                found[root] = name
            found[place] = found[root]
        for at, of in enumerate(self.schemas):
            if len({found[at, name] for name in of.names}) < len(of):
                raise NotPlain
        return found


def is_region(plan: Plan, schemas: Schemas) -> bool:
    """Return whether a node belongs to the region of the surrounding joins."""
    match plan:
        case Join(how="inner"):
            left, right = schemas[id(plan.left)], schemas[id(plan.right)]
            kinds = join_key_types(plan, left, right)
            return all(
                # Equal keys must be interchangeable: the same type, and no floats, where -0.0
                # equals 0.0.
                left.field(one).type == kind == right.field(other).type and not kind.is_float
                for (one, other), kind in zip(plan.on, kinds, strict=True)
            )
        case Rename():
            return True
        case Project(columns=columns):
            return all(isinstance(expr, Column) for _, expr in columns)
        case Filter(below, predicate):
            schema = schemas[id(below)]
            return not any(bind(term, schema).fallible for term in conjuncts(predicate))
    return False


def read_region(plan: Plan, schemas: Schemas) -> Region:
    """Return the canonical form of the joins from `plan` down.

    Raises:
        NotPlain: an input's column would have two names.
    """
    region = Region()
    region.output, region.tree = _read(plan, schemas, region)
    return region


def _read(plan: Plan, schemas: Schemas, region: Region) -> tuple[dict[str, Place], Tree]:
    if not _has_join(plan, schemas):
        return _leaf(plan, schemas, region)
    match plan:
        case Join(left, right):
            return _read_join(plan, left, right, schemas, region)
        case Rename(below, names):
            columns, tree = _read(below, schemas, region)
            new = dict(names)
            return {new.get(name, name): place for name, place in columns.items()}, tree
        case Project(below, made):
            columns, tree = _read(below, schemas, region)
            pairs = ((name, expr) for name, expr in made if isinstance(expr, Column))
            return {name: columns[expr.name] for name, expr in pairs}, tree
        case Filter(below, predicate):
            columns, tree = _read(below, schemas, region)
            for term in conjuncts(predicate):
                _read_term(term, columns, region)
            return columns, tree
    raise AssertionError("is_region accepts no other node")


def _has_join(plan: Plan, schemas: Schemas) -> bool:
    """Return whether there is a join of the region below, ignoring renames and filters."""
    while is_region(plan, schemas):
        if isinstance(plan, Join):
            return True
        assert isinstance(plan, Rename | Project | Filter)
        plan = plan.input
    return False


def _leaf(plan: Plan, schemas: Schemas, region: Region) -> tuple[dict[str, Place], Tree]:
    at = len(region.leaves)
    region.leaves.append(plan)
    region.schemas.append(schemas[id(plan)])
    return {name: (at, name) for name in schemas[id(plan)].names}, at


def _read_join(
    node: Join, left: Plan, right: Plan, schemas: Schemas, region: Region
) -> tuple[dict[str, Place], Tree]:
    ours, one = _read(left, schemas, region)
    theirs, other = _read(right, schemas, region)
    for mine, its in node.on:
        region.unite(ours[mine], theirs[its])
    renamed = right_names(node, schemas[id(left)], schemas[id(right)])
    return {**ours, **{new: theirs[old] for old, new in renamed.items()}}, (one, other)


def _read_term(term: Expr, columns: dict[str, Place], region: Region) -> None:
    match term:
        # `a.x = b.y` in a filter is a join key like any other.
        case Call("eq", (Column(one), Column(other))):
            places = columns[one], columns[other]
            kinds = [region.schemas[at].field(name).type for at, name in places]
            apart = places[0][0] != places[1][0]
            if apart and kinds[0] == kinds[1] and not kinds[0].is_float:
                region.unite(*places)
                return
    region.filters.append(
        substitute(term, {name: Column(spell(columns[name])) for name in columns_of(term)})
    )


def spell(place: Place) -> str:
    """Return a name for an input's column, for filters."""
    return f"{place[0]}:{place[1]}"


def place_of(word: str) -> Place:
    """Return the column that `spell` named."""
    at, _, name = word.partition(":")
    return int(at), name
