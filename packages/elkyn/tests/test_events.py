"""A change of many paths sends the events of the single changes in order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn import testing as model
from elkyn.tree.events import Event, applied, replay
from elkyn.tree.paths import parse_path
from elkyn.tree.values import copied, prepare, same, with_at


@pytest.mark.slow
@given(model.VALUES, st.dictionaries(model.PATHS, model.VALUES, max_size=8))
def test_places_changed_together_are_as_one_after_the_other(
    value: Any, changes: dict[str, Any]
) -> None:
    kept: list[tuple[tuple[str, ...], Any]] = []
    for text, new in changes.items():
        path = parse_path(text)
        if not any(path[: len(p)] == p or p[: len(path)] == path for p, _new in kept):
            kept.append((path, prepare(new).value))
    before = prepare(value).value
    expected = before
    for path, new in kept:
        expected = with_at(expected, path, new)
    untouched = copied(before)
    assert same(applied(before, kept), expected)
    assert same(before, untouched)


@pytest.mark.nightly
def test_a_patch_of_many_places_is_replayed_in_one_pass() -> None:
    changes = tuple((("a", f"k{number}"), number) for number in range(50_000))
    event = Event("patch", "/a", changes=changes)
    whole = replay({"a": {"old": 1}}, event)
    assert len(whole["a"]) == 50_001
    assert event.data["k7"] == 7
