"""Limits on guessing and signing up: by client address, so that one client cannot lock out another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn.auth.authenticator import Authenticator, AuthSettings
from elkyn.auth.endpoints import AuthRequest
from elkyn.auth.errors import AccountError
from elkyn.auth.failed_logins import client_network
from sennit_core.testing import ManualClock

EMAIL = "owner@example.com"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_700_000_000)


@pytest.fixture
def auth(clock: ManualClock) -> Authenticator:
    found = Authenticator(AuthSettings(sign_ups_max=3), clock=clock)
    found.users.create(email=EMAIL, password="secret1")
    return found


def guess(auth: Authenticator, client: str, times: int) -> str:
    """Show wrong passwords; returns the reason of the last refusal."""
    reason = ""
    for _ in range(times):
        with pytest.raises(AccountError) as refused:
            auth.users.sign_in(EMAIL, "wrong-1", client)
        reason = refused.value.reason
    return reason


def test_a_guesser_does_not_lock_the_owner_out(auth: Authenticator) -> None:
    with auth:
        assert guess(auth, "192.0.2.1", 11) == "TOO_MANY_ATTEMPTS_TRY_LATER"
        assert auth.users.sign_in(EMAIL, "secret1", "198.51.100.7").email == EMAIL


@pytest.mark.nightly
def test_a_guesser_with_many_addresses_is_stopped_and_the_owner_is_not(
    auth: Authenticator, clock: ManualClock
) -> None:
    with auth:
        auth.users.sign_in(EMAIL, "secret1", "198.51.100.7")
        reasons = [guess(auth, f"192.0.2.{number}", 5) for number in range(30)]
        assert reasons[0] == "INVALID_LOGIN_CREDENTIALS"
        assert reasons[-1] == "TOO_MANY_ATTEMPTS_TRY_LATER"
        assert auth.users.sign_in(EMAIL, "secret1", "198.51.100.7").email == EMAIL
        with pytest.raises(AccountError, match="Too many failures"):
            auth.users.sign_in(EMAIL, "secret1", "203.0.113.9")  # where it was never used before
        clock.advance(60)
        assert auth.users.sign_in(EMAIL, "secret1", "203.0.113.9").email == EMAIL


@pytest.mark.slow
def test_the_addresses_of_one_ipv6_client_count_as_one(auth: Authenticator) -> None:
    with auth:
        for number in range(10):
            guess(auth, f"2001:db8:0:1::{number:x}", 1)
        assert guess(auth, "2001:db8:0:1:ffff::1", 1) == "TOO_MANY_ATTEMPTS_TRY_LATER"
        assert guess(auth, "2001:db8:0:2::1", 1) == "INVALID_LOGIN_CREDENTIALS"
        path = "/identitytoolkit.googleapis.com/v1/accounts:signUp"
        codes = [
            auth.answer(AuthRequest("POST", path, body=b"{}", client=f"2001:db8::{n:x}")).status
            for n in range(5)
        ]
        assert codes == [200, 200, 200, 429, 429]


@pytest.mark.slow
@given(st.one_of(st.ip_addresses().map(str), st.text(max_size=20), st.none()))
def test_every_address_counts_as_something(client: str | None) -> None:
    network = client_network(client)
    assert client_network(network.removesuffix("/64")) == network
