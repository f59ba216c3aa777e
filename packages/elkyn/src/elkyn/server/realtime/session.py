"""One client's session of the realtime protocol as a state machine: frames in, steps out.

`Session` keeps the client's listens and its writes for a disconnect; it uses no store, no clock
and no network. `socket` executes the steps and sends the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from elkyn.server.bodies.large_bodies import RawJson
from elkyn.server.realtime.large_messages import (
    LARGE_CHARS,
    Announced,
    Unparsed,
    parse_large,
    try_announced,
)
from elkyn.server.realtime.wire import Assembler, Message, hello, parse, push, reply
from elkyn.tree.paths import Path, format_path, parse_path
from elkyn.tree.query import Query
from sennit_core.errors import SennitError, TooLarge, UsageError

__all__ = [
    "Attach",
    "Commit",
    "Detach",
    "End",
    "Fetch",
    "Listen",
    "OnDisconnect",
    "Ping",
    "Send",
    "Session",
    "SignIn",
    "SignOut",
    "Step",
]

_DISCONNECT_WRITES_MAX = 10_000  # of one connection


@dataclass(frozen=True, slots=True)
class Listen:
    """A listen of a client.

    Args:
        path: the node.
        query: None for the whole node.
        tag: the client's name for a query; pushes repeat it.
        wire: the query as the client wrote it.
        names: whether pushes carry ids of events, from which the client can resume.
    """

    path: Path
    query: Query | None = None
    tag: Any = None
    wire: Any = field(default=None, compare=False)
    names: bool = field(default=False, compare=False)

    @property
    def name(self) -> str:
        """The path as pushes name it."""
        return "/".join(self.path)


@dataclass(slots=True)
class Send:
    """Send this message."""

    text: str


@dataclass(slots=True)
class Ping:
    """Answer a keep-alive, with the position up to which the client has received all events."""


@dataclass(slots=True)
class Attach:
    """Start a listen; the client names the value it has by hash, or the last event it has seen."""

    number: int
    listen: Listen
    known_hash: str
    seen: str
    mark: str


@dataclass(slots=True)
class Detach:
    """Stop a listen."""

    number: int
    listen: Listen


@dataclass(slots=True)
class Commit:
    """Write; if `expected_hash` is not None, only when the current value has that hash."""

    number: int
    kind: Literal["put", "patch"]
    path: Path
    data: Any
    expected_hash: str | None


@dataclass(slots=True)
class Fetch:
    """Read once."""

    number: int
    path: Path
    query: Query | None


@dataclass(slots=True)
class OnDisconnect:
    """Check a write that is for the client's disconnect, and `keep_for_disconnect` it."""

    number: int
    kind: Literal["put", "patch"]
    path: Path
    data: Any


@dataclass(slots=True)
class SignIn:
    """Sign in; `variable` is what an admin wants rules to see as `auth`."""

    number: int
    credential: str
    variable: Mapping[str, Any] | None
    unauthenticated: bool


@dataclass(slots=True)
class SignOut:
    """Forget the credential."""

    number: int


@dataclass(slots=True)
class End:
    """Close the connection: the client broke the protocol."""

    reason: str


Step: TypeAlias = (
    Send
    | Ping
    | Attach
    | Detach
    | Commit
    | Fetch
    | OnDisconnect
    | SignIn
    | SignOut
    | End
    | Announced
    | Unparsed
)


class Session:
    """The protocol's side of one connection.

    Args:
        session_id: sent to the client.
        listens_max: more listens are refused.
        chars_max: of one message.
    """

    def __init__(self, session_id: str, *, listens_max: int, chars_max: int) -> None:
        self.session_id = session_id
        # The client's view: a listen is here from its request until it is ended by either side.
        self.listens: dict[tuple[Path, Any], Listen] = {}
        self._listens_max = listens_max
        self._assembler = Assembler(chars_max)
        # In the order of the requests; no place is at or below that of a later one.
        self._disconnect_writes: list[tuple[Path, Any]] = []

    def hello(self, host: str, now_ms: int) -> str:
        """Return the first message of a session."""
        return hello(self.session_id, host, now_ms)

    def receive(self, frame: str) -> Step | None:
        """Process a frame; returns the step to execute, None when there is none."""
        try:
            text = self._assembler.feed(frame)
            if text is None:
                first = self._assembler.first_frame
                return None if first is None else try_announced(first)
            if len(text) > LARGE_CHARS:
                return Unparsed(text)
            message = parse(text)
        except (UsageError, TooLarge) as error:
            return End(str(error))
        return self._step(message)

    def parse_large(self, text: str) -> Step | None:
        """Return the step of a large message; slow, so call it on a thread."""
        try:
            message = parse_large(text)
        except UsageError as error:
            return End(str(error))
        if message.action not in ("p", "m"):
            reason = "only a put or a merge may be this large"
            return Send(reply(message.number, "too_big", reason))
        return self._step(message)

    def discard(self) -> None:
        """Ignore the remaining frames of the current message: it was answered already."""
        self._assembler.discard()

    def _step(self, message: Message) -> Step | None:
        # A control message, which has no number: a ping is answered, any other is ignored.
        if message.number < 0:
            return Ping() if message.action == "control:p" else None
        handler = self._handlers.get(message.action)
        if handler is None:
            reason = f"there is no action {message.action[:20]!r}"
            return Send(reply(message.number, "unknown_action", reason))
        try:
            return handler(self, message)
        except SennitError as error:
            return Send(reply(message.number, "failure", str(error)))

    def _listen(self, message: Message) -> Step:
        listen = _listen_of(message)
        key = (listen.path, listen.tag)
        if key in self.listens:
            raise UsageError("this connection listens to the path already")
        if len(self.listens) >= self._listens_max:
            raise UsageError(f"at most {self._listens_max} listens on one connection")
        # Before the permission is checked: `forget` removes it when the listen is refused.
        self.listens[key] = listen
        known, seen, mark = (_text(message, name) for name in ("h", "i", "m"))
        return Attach(message.number, listen, known, seen, mark)

    def _unlisten(self, message: Message) -> Step:
        path = _path(message)
        tag = message.body.get("t")
        listen = self.listens.pop((path, tag if isinstance(tag, int | str) else None), None)
        # The server has ended it already (`revoked`), which the client could not know.
        if listen is None:
            return Send(reply(message.number, "ok"))
        return Detach(message.number, listen)

    def forget(self, listen: Listen) -> None:
        """Drop a listen that was refused or revoked."""
        self.listens.pop((listen.path, listen.tag), None)

    def revoked(self, listen: Listen) -> str:
        """Drop a listen; returns the message that reports its revocation."""
        self.forget(listen)
        body: dict[str, Any] = {"p": listen.name}
        if listen.query is not None:
            body["q"] = [listen.wire]
        return push("c", body)

    def _put(self, message: Message) -> Step:
        return self._commit(message, "put")

    def _merge(self, message: Message) -> Step:
        _object(message)
        return self._commit(message, "patch")

    def _commit(self, message: Message, kind: Literal["put", "patch"]) -> Step:
        expected = message.body.get("h")
        known = expected if isinstance(expected, str) else None
        return Commit(message.number, kind, _path(message), message.body.get("d"), known)

    def _get(self, message: Message) -> Step:
        return Fetch(message.number, _path(message), _query(message))

    def _on_disconnect_put(self, message: Message) -> Step:
        return OnDisconnect(message.number, "put", _path(message), message.body.get("d"))

    def _on_disconnect_merge(self, message: Message) -> Step:
        return OnDisconnect(message.number, "patch", _path(message), _object(message))

    def _on_disconnect_cancel(self, message: Message) -> Step:
        self._drop(_path(message))
        return Send(reply(message.number, "ok"))

    def keep_for_disconnect(self, step: OnDisconnect) -> None:
        """Keep a write for the client's disconnect; it replaces those at and below its places.

        Raises:
            UsageError: too many are kept.
        """
        places = [(step.path, step.data)]
        if step.kind == "patch":
            places = [((*step.path, *parse_path(name)), v) for name, v in step.data.items()]
        for path, data in places:
            self._drop(path)
            if len(self._disconnect_writes) >= _DISCONNECT_WRITES_MAX:
                raise UsageError(
                    f"at most {_DISCONNECT_WRITES_MAX} writes are kept for a disconnect"
                )
            self._disconnect_writes.append((path, data))

    def _drop(self, path: Path) -> None:
        # A later write at or above a place replaces the earlier one; a cancel (`oc`) drops all of
        # them.
        self._disconnect_writes = [
            kept for kept in self._disconnect_writes if kept[0][: len(path)] != path
        ]

    def pop_disconnect_writes(self) -> list[tuple[Path, Any]]:
        """Return the writes for the client's disconnect, and forget them."""
        writes, self._disconnect_writes = self._disconnect_writes, []
        return writes

    def _sign_in(self, message: Message) -> Step:
        credential = message.body.get("cred")
        if not isinstance(credential, str):
            raise UsageError("a credential must be a string")
        variable = message.body.get("authvar")
        unauthenticated = message.body.get("noauth") is True
        auth_variable = variable if isinstance(variable, dict) else None
        return SignIn(message.number, credential, auth_variable, unauthenticated)

    def _sign_out(self, message: Message) -> Step:
        return SignOut(message.number)

    def _ok(self, message: Message) -> Step:
        return Send(reply(message.number, "ok"))

    def _echo(self, message: Message) -> Step:
        return Send(reply(message.number, "ok", message.body.get("d")))

    _handlers: ClassVar[Mapping[str, Callable[[Session, Message], Step]]] = {
        "q": _listen,
        "n": _unlisten,
        "p": _put,
        "m": _merge,
        "g": _get,
        "o": _on_disconnect_put,
        "om": _on_disconnect_merge,
        "oc": _on_disconnect_cancel,
        "auth": _sign_in,
        "gauth": _sign_in,
        "unauth": _sign_out,
        "appcheck": _ok,
        "unappeck": _ok,
        "s": _ok,
        "echo": _echo,
    }


def _text(message: Message, name: str) -> str:
    found = message.body.get(name)
    return found if isinstance(found, str) else ""


def _path(message: Message) -> Path:
    path = message.body.get("p")
    if not isinstance(path, str):
        raise UsageError("a path must be a string")
    return parse_path(path)


def _object(message: Message) -> dict[str, Any]:
    data = message.body.get("d")
    if isinstance(data, RawJson):  # checked when it is parsed
        return {}
    if not isinstance(data, dict):
        raise UsageError(f"a merge at {format_path(_path(message))} needs an object")
    return data


def _query(message: Message) -> Query | None:
    wire = message.body.get("q")
    if not wire:
        return None
    if not isinstance(wire, dict):
        raise UsageError("a query must be an object")
    query = Query.of_wire(wire)
    return None if query.is_default else query


def _listen_of(message: Message) -> Listen:
    tag = message.body.get("t")
    query = _query(message)
    if query is None:
        return Listen(_path(message), names=isinstance(message.body.get("i"), str))
    if not isinstance(tag, int | str):
        raise UsageError("a listen with a query needs a tag")
    return Listen(_path(message), query, tag, message.body["q"])
