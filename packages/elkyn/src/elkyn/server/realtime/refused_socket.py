"""A WebSocket that cannot be served: every request on it is answered with the reason.

The protocol has a message for that case, the control message `s` (shutdown), and the SDKs obey it:
they print the reason, never reconnect, and leave each pending promise, listen and transaction
unsettled (`onKill` of `PersistentConnection` in `@firebase/database`), so an app waits for ever. Only
an error in the answer to a request settles it, so the connection stays open for these answers.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from elkyn.server.asgi import Receive, Send
from elkyn.server.auth_backend import ClientAuth
from elkyn.server.bodies.memory import LARGE_FACTOR
from elkyn.server.realtime.large_messages import LARGE_CHARS, parse_large, try_announced
from elkyn.server.realtime.socket_store import status_of
from elkyn.server.realtime.wire import Assembler, control, frames_of, hello, parse, push, reply
from elkyn.server.responses import error_text
from sennit_core.errors import Busy, SennitError, TooLarge, UsageError

if TYPE_CHECKING:
    from elkyn.rules.read_set import ReadSet
    from elkyn.server.state import ServerState

__all__ = ["RefusedSocket"]

_SILENCE_SECONDS_MAX = 150.0  # as for connections that are served
_GOING_AWAY = 1001
_BAD_DATA = 1007
_TRY_AGAIN_LATER = 1013

_REFUSED = frozenset({"q", "g", "p", "m", "o", "om", "oc"})
"""Requests about data. The others (credentials, statistics, end of a listen) are answered with `ok`:
an SDK whose credential is refused drops the connection and reconnects in an endless loop."""


class RefusedSocket:
    """One connection whose requests are refused.

    Args:
        app: the server.
        client_auth: the client.
        reason: returns why requests are refused; None once they would be served. Called for each
            request, so that a namespace that is created meanwhile can be used.
        send: ASGI's.
        client: the client's address.
    """

    kind = "ws"
    store = None

    def __init__(
        self,
        app: ServerState,
        client_auth: ClientAuth,
        reason: Callable[[], Awaitable[SennitError | None]],
        send: Send,
        client: str,
    ) -> None:
        self.client_auth = client_auth
        self._reason = reason
        self._send = send
        self._memory = app.body_memory.reserve(client)
        self._assembler = Assembler(app.settings.limits.message_bytes)
        self._received_at = asyncio.get_running_loop().time()
        # The pending `receive`, which `_end` cancels: this task is the only one that may send the
        # close.
        self._receiving: asyncio.Future[Any] | None = None
        self._close_code: int | None = None

    # The interface to `Clients`.

    def read_sets(self) -> Iterable[ReadSet]:
        """Return nothing: no permission depends on data, as nothing is read."""
        return ()

    def tick(self, now: float) -> None:
        """Close a connection that has been silent for too long."""
        if now - self._received_at > _SILENCE_SECONDS_MAX:
            self.close()

    def recheck(self) -> None:
        """Do nothing: there are no listens."""

    hold_for_recheck = recheck
    disconnect_diverged = recheck

    def revoke(self, reason: str) -> None:
        """Close the connection: the client reconnects without the revoked credential."""
        self.close()

    def close(self) -> None:
        """Close the connection with `going away`."""
        self._end(_GOING_AWAY)

    def _end(self, code: int) -> None:
        if self._close_code is None:
            self._close_code = code
        if self._receiving is not None:
            self._receiving.cancel()

    # The connection.

    async def run(self, receive: Receive, host: str) -> None:
        """Refuse requests until one side closes the connection, or requests would be served."""
        first = await self._reason()
        await self._send_message(hello(secrets.token_urlsafe(12), host, int(time.time() * 1000)))
        if first is not None:
            # SDKs log this message; listens without an error callback would fail silently.
            await self._send_message(push("sd", {"msg": error_text(first)}))
        with self._memory:
            while (message := await self._next(receive)) is not None:
                if message["type"] == "websocket.disconnect":
                    return
                self._received_at = asyncio.get_running_loop().time()
                await self._handle(message.get("text"))
        await self._send({"type": "websocket.close", "code": self._close_code})

    async def _next(self, receive: Receive) -> Any:
        """Return the next message; None when the connection is to be closed."""
        if self._is_closing():
            return None
        self._receiving = asyncio.ensure_future(receive())
        try:
            return await self._receiving
        except asyncio.CancelledError:
            # Two reasons for the same exception: `_end` cancelled only the receive, or the server
            # the task.
            if not self._is_closing():  # the server cancels this task
                raise
            return None
        finally:
            self._receiving = None

    def _is_closing(self) -> bool:
        return self._close_code is not None

    async def _handle(self, frame: str | None) -> None:
        try:
            message = await self._receive(frame or "")
        except (UsageError, TooLarge) as error:
            await self._send_message(control("e", str(error)))
            self._end(_BAD_DATA)
            return
        except Busy:
            self._end(_TRY_AGAIN_LATER)
            return
        if message is None:
            return
        number, action = message
        if number < 0:
            if action == "control:p":
                await self._send_message(control("o", None))
        elif action not in _REFUSED:
            await self._send_message(reply(number, "ok", {}))
        elif (found := await self._reason()) is None:
            self._end(_TRY_AGAIN_LATER)  # SDKs reconnect, and send the request again
        else:
            await self._send_message(reply(number, status_of(found), error_text(found)))

    async def _receive(self, frame: str) -> tuple[int, str] | None:
        """Return number and action of the request that a frame completes or announces.

        A large write is refused at its first frame and the rest ignored, so that it uses no memory.

        Raises:
            Busy: the messages of all clients reach the memory limit.
        """
        text = self._assembler.feed(frame)
        if text is None:
            first = self._assembler.first_frame
            write = None if first is None else try_announced(first)
            if write is not None:
                self._assembler.discard()
                return write.number, "p"
            self._memory.add(len(frame) * LARGE_FACTOR)
            return None
        try:
            if len(text) > LARGE_CHARS:
                message = await asyncio.to_thread(parse_large, text)
            else:
                message = parse(text)
        finally:
            self._memory.release()
        return message.number, message.action

    async def _send_message(self, message: str) -> None:
        for frame in frames_of(message):
            await self._send({"type": "websocket.send", "text": frame})
