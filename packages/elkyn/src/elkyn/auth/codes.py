"""Out-of-band codes, sent by email: to reset a password, verify or change an email, or sign in.

A code is random, valid once and for a limited time, and stored as its SHA-256. The embedding
application delivers it: `Deliver` is called with it. An emulator keeps the latest codes for tests.
"""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import urlencode

from elkyn.auth.account_store import AccountStore, Code, Pages
from elkyn.auth.errors import AccountError
from elkyn.auth.throttle import Throttle
from sennit_core.clock import Clock

__all__ = ["PURPOSES", "Codes", "Deliver", "Message", "Purpose"]

Purpose: TypeAlias = Literal[
    "PASSWORD_RESET", "VERIFY_EMAIL", "VERIFY_AND_CHANGE_EMAIL", "EMAIL_SIGNIN"
]

PURPOSES: dict[Purpose, tuple[str, int]] = {
    "PASSWORD_RESET": ("resetPassword", 3600),
    "VERIFY_EMAIL": ("verifyEmail", 3 * 24 * 3600),
    "VERIFY_AND_CHANGE_EMAIL": ("verifyAndChangeEmail", 3 * 24 * 3600),
    "EMAIL_SIGNIN": ("signIn", 6 * 3600),
}
"""For each purpose the `mode` of its link, and how many seconds a code is valid."""

_MESSAGES_MAX = 100
_CODE_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class Message:
    """A message to deliver: the code, and the link that contains it."""

    purpose: Purpose
    email: str
    code: str
    link: str


Deliver: TypeAlias = Callable[[Message], object]
"""Sends a message, or queues it; an exception fails the request."""


class Codes:
    """Creates and redeems codes; thread-safe.

    Args:
        account_store: stores the codes.
        clock: decides when codes have expired.
        action_url: the page of the links; it reads `mode` and `oobCode`.
        deliver: sends the messages; None: requests that need a message are refused.
        keep: whether the latest codes can be listed (an emulator).
    """

    def __init__(
        self,
        account_store: AccountStore,
        clock: Clock,
        action_url: str,
        deliver: Deliver | None,
        *,
        keep: bool,
    ) -> None:
        self._account_store = account_store
        self._clock = clock
        self._action_url = action_url
        self._deliver = deliver
        self._throttle = Throttle(10, 600, clock)
        self._messages: deque[Message] | None = deque(maxlen=_MESSAGES_MAX) if keep else None
        self._lock = threading.Lock()

    def make(self, code: Code, query: dict[str, str] | None = None) -> Message:
        """Create a code; the caller delivers it.

        Args:
            code: the purpose and user of the code; its expiry is set here.
            query: additional parameters of the link.
        """
        text = secrets.token_urlsafe(40)
        mode, seconds = PURPOSES[code.purpose]
        ends = int(self._clock.now()) + seconds
        self._account_store.write(
            lambda pages: _keep(pages, text, code, ends, int(self._clock.now()))
        )
        parameters = {"mode": mode, "oobCode": text, **(query or {})}
        mark = "&" if "?" in self._action_url else "?"
        to = code.new_email or code.email
        return Message(code.purpose, to, text, f"{self._action_url}{mark}{urlencode(parameters)}")

    def admit(self, email: str) -> None:
        """Count a request to send a message to `email`, whether or not a user has it.

        Raises:
            AccountError: too many requests recently, or the server cannot deliver messages.
        """
        if self._deliver is None and self._messages is None:
            raise AccountError("OPERATION_NOT_ALLOWED", "This server sends no messages.")
        if self._throttle.refuses(email):
            raise AccountError("RESET_PASSWORD_EXCEED_LIMIT", status=429)
        self._throttle.failed(email)

    def send(self, code: Code, query: dict[str, str]) -> None:
        """Create a code and deliver it; call `admit` first."""
        message = self.make(code, query)
        if self._deliver is not None:
            self._deliver(message)
        with self._lock:
            if self._messages is not None:
                self._messages.append(message)

    def list_messages(self) -> list[Message]:
        """Return the latest messages, the oldest first; only for emulators."""
        with self._lock:
            return list(self._messages or ())

    def inspect(self, text: str) -> Code:
        """Return the purpose of a code without redeeming it.

        Raises:
            AccountError: the code is invalid or expired.
        """
        with self._account_store.read() as pages:
            return self._valid_code(pages, text)

    def redeem(self, text: str, *purposes: Purpose) -> Code:
        """Redeem a code: return its purpose and invalidate it.

        Raises:
            AccountError: the code is invalid, expired, or not for one of `purposes`.
        """

        def body(pages: Pages) -> Code:
            code = self._valid_code(pages, text)
            if code.purpose not in purposes:
                raise AccountError("INVALID_OOB_CODE")
            # In the transaction that found it valid: of two requests with one code, one succeeds.
            pages.put_code(text, None)
            return code

        return self._account_store.write(body)

    def _valid_code(self, pages: Pages, text: str) -> Code:
        code = pages.code(text) if len(text) <= _CODE_CHARACTERS_MAX else None
        if code is None:
            raise AccountError("INVALID_OOB_CODE")
        if code.ends < self._clock.now():
            raise AccountError("EXPIRED_OOB_CODE")
        return code


def _keep(pages: Pages, text: str, code: Code, ends: int, now: int) -> None:
    pages.forget_codes(now)
    pages.put_code(text, Code(code.purpose, code.uid, code.email, code.new_email, ends))
