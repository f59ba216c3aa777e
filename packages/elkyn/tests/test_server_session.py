"""A session of the realtime protocol as a pure state machine: no socket, no store."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn.server.realtime import session as steps
from elkyn.server.realtime.session import Session
from elkyn.server.realtime.wire import FRAME_CHARS, Assembler, frames_of
from sennit_core.errors import TooLarge, UsageError


def session(listens_max: int = 3) -> Session:
    return Session("s", listens_max=listens_max, chars_max=100_000)


def request(action: str, **body: Any) -> str:
    return json.dumps({"t": "d", "d": {"r": 1, "a": action, "b": body}})


def test_a_request_becomes_a_step() -> None:
    machine = session()
    put = machine.receive(request("p", p="/a/b", d={"c": 1}, h=""))
    assert put == steps.Commit(1, "put", ("a", "b"), {"c": 1}, "")
    assert machine.receive(request("m", p="a", d={"c": 1})) == steps.Commit(
        1, "patch", ("a",), {"c": 1}, None
    )
    assert machine.receive(request("g", p="/", q={})) == steps.Fetch(1, (), None)
    assert machine.receive(request("auth", cred="t")) == steps.SignIn(1, "t", None, False)
    assert machine.receive("0") is None


def test_a_place_is_listened_to_once_and_can_be_left() -> None:
    machine = session()
    attach = machine.receive(request("q", p="/a", h="x"))
    assert isinstance(attach, steps.Attach)
    assert (attach.listen.path, attach.known_hash) == (("a",), "x")
    again = machine.receive(request("q", p="/a", h=""))
    assert isinstance(again, steps.Send)
    assert "already" in again.text
    assert machine.receive(request("n", p="/a")) == steps.Detach(1, attach.listen)
    assert isinstance(machine.receive(request("n", p="/a")), steps.Send)
    assert isinstance(machine.receive(request("q", p="/a", h="")), steps.Attach)


def test_listens_are_bounded() -> None:
    machine = session(listens_max=2)
    found = [machine.receive(request("q", p=f"/{n}", h="")) for n in range(3)]
    assert [type(step) for step in found] == [steps.Attach, steps.Attach, steps.Send]


def test_later_writes_replace_those_below_and_come_out_once() -> None:
    machine = session()
    for action, body in (
        ("o", {"p": "/a/b", "d": 1}),
        ("om", {"p": "/a", "d": {"c": 2, "d/e": 3}}),
        ("o", {"p": "/z", "d": 9}),
        ("o", {"p": "/a/d", "d": 4}),
    ):
        step = machine.receive(request(action, **body))
        assert isinstance(step, steps.OnDisconnect)
        machine.keep_for_disconnect(step)
    machine.receive(request("oc", p="/z"))
    assert machine.pop_disconnect_writes() == [(("a", "b"), 1), (("a", "c"), 2), (("a", "d"), 4)]
    assert machine.pop_disconnect_writes() == []


@given(st.text(max_size=3 * FRAME_CHARS))
def test_frames_put_together_are_the_message(message: str) -> None:
    text = json.dumps(message)
    assembler = Assembler(10**6)
    found = [assembler.feed(frame) for frame in frames_of(text)]
    short = len(text) <= 6 and text.isdecimal()
    assert found[-1] == text or short
    assert all(frame is None for frame in found[:-1])


def test_messages_are_bounded() -> None:
    assembler = Assembler(10)
    with pytest.raises(TooLarge):
        assembler.feed("x" * 11)
    assert assembler.feed("2") is None
    assert assembler.feed("x" * 6) is None
    with pytest.raises(TooLarge):
        assembler.feed("x" * 6)
    with pytest.raises(UsageError):
        Assembler(10).feed("99999")


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
ACTIONS = st.sampled_from([*"qnpmgs", "o", "om", "oc", "auth", "gauth", "unauth", "echo", "x"])
BODIES = st.dictionaries(st.sampled_from([*"pdqth", "cred", "authvar"]), JSON)


@pytest.mark.slow
@given(
    st.lists(
        st.one_of(
            st.text(max_size=20),
            JSON.map(json.dumps),
            st.builds(lambda a, b: request(a, **b), ACTIONS, BODIES),
        ),
        max_size=8,
    )
)
def test_any_input_causes_a_step_or_no_output(frames: list[str]) -> None:
    machine = session()
    for frame in frames:
        step = machine.receive(frame)
        assert step is None or isinstance(step, steps.Step)
        if isinstance(step, steps.End):
            break
