"""Nesting is found without parsing, with any strings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt.io.json_depth import DEPTH_MAX, _depth, refuse_deep_json
from sennit_core.errors import BadInput

VALUES = st.recursive(
    st.none() | st.text(st.sampled_from('[]{}\\"x\n')) | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.sampled_from('[{"\\')), inner),
    max_leaves=20,
)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@pytest.mark.slow
@given(st.lists(VALUES, min_size=1, max_size=4))
def test_depth_is_that_of_the_deepest_record(records: list[Any]) -> None:
    text = "\n".join(map(json.dumps, records)).encode()

    assert _depth(text) == max(map(depth_of, records))


@pytest.mark.parametrize("before", [b"", b'{"a": "]]]]"}\n' * 3, b'{"a": "\\\\"}\n'])
def test_deep_records_are_refused(before: bytes) -> None:
    deep = b'{"a":\n' * DEPTH_MAX + b"[]" + b"}" * DEPTH_MAX

    with pytest.raises(BadInput, match="nested deeper than 64"):
        refuse_deep_json(before + deep, "x.jsonl", 1)


def test_many_flat_records_are_not_deep() -> None:
    refuse_deep_json(b'{"a": [1]}\n' * 1000, "x.jsonl", 1)
