"""Heads that two readers could understand differently are refused before they reach an app."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn.server.http.request_head import SINGLE_HEADERS, checked_headers
from sennit_core.errors import UsageError

HOST = (b"host", b"a.example")


@pytest.mark.parametrize("name", sorted(SINGLE_HEADERS))
def test_a_repeated_header_is_refused(name: bytes) -> None:
    headers = [HOST] if name != b"host" else []
    with pytest.raises(UsageError, match=name.decode()):
        checked_headers(
            b"/", "1.1", [*headers, (name, b"one"), (b"accept", b"*/*"), (name, b"one")]
        )


def test_other_headers_may_be_repeated() -> None:
    headers = [HOST, (b"accept", b"text/csv"), (b"accept", b"*/*")]
    assert checked_headers(b"/", "1.1", headers) is headers


def test_a_host_is_needed_from_http_1_1_on() -> None:
    with pytest.raises(UsageError, match="Host"):
        checked_headers(b"/", "1.1", [])
    assert checked_headers(b"/", "1.0", []) == []


def test_the_authority_of_an_absolute_target_replaces_the_host() -> None:
    headers = checked_headers(b"http://evil.example:80/a?b", "1.1", [HOST, (b"accept", b"*/*")])
    assert headers == [(b"host", b"evil.example:80"), (b"accept", b"*/*")]


@pytest.mark.parametrize("target", [b"evil.example:443", b"ftp://a/b", b"http:///a", b"\xff", b""])
def test_a_target_of_another_form_is_refused(target: bytes) -> None:
    with pytest.raises(UsageError, match="target"):
        checked_headers(target, "1.1", [HOST])


@pytest.mark.slow
@given(
    st.binary(max_size=40),
    st.lists(st.tuples(st.sampled_from([*SINGLE_HEADERS, b"accept"]), st.binary(max_size=9))),
)
def test_any_head_is_answered_with_one_host_or_refused(
    target: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    try:
        found = checked_headers(target, "1.1", headers)
    except UsageError:
        return
    for name in SINGLE_HEADERS:
        assert [key for key, _ in found].count(name) <= 1
    assert b"host" in dict(found)
