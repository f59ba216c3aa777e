"""What is served at the same time: one peer leaves room for the others."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from lake.peers.transport.limits import Slots
from sennit_core.errors import Busy


def test_a_peer_has_its_share_of_the_slots_and_gives_them_back() -> None:
    slots = Slots("parts", total=3, of_peer=2)
    for _ in range(2):
        with ExitStack() as held:
            held.enter_context(slots.take("a"))
            held.enter_context(slots.take("a"))
            with pytest.raises(Busy, match="parts"):
                held.enter_context(slots.take("a"))
            held.enter_context(slots.take("b"))
            with pytest.raises(Busy):
                held.enter_context(slots.take("c"))
