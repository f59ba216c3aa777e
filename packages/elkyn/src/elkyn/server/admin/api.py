"""Admin endpoints of the dashboard: sign-in method, namespaces, simulation of rules."""

from __future__ import annotations

import json
from typing import Any

from elkyn.auth.principal import UNAUTHENTICATED, Principal
from elkyn.rules import RuleSet, parse_rules
from elkyn.server.admin.system import SystemCall
from elkyn.server.bodies.codec import dump
from elkyn.server.request import MethodNotAllowed, Response
from elkyn.tree.paths import parse_path
from elkyn.tree.reader import Overlay
from elkyn.tree.values import prepare, resolve
from sennit_core.clock import SYSTEM
from sennit_core.errors import UsageError

__all__ = ["namespaces", "server", "simulate"]

_JSON = ("content-type", "application/json; charset=utf-8")


async def server(call: SystemCall) -> Response:
    """Answer which sign-in the dashboard shows, to any client: `signIn` is `owner` or `token`."""
    sign_in = call.app.settings.dashboard or "token"
    return Response(200, dump({"signIn": sign_in}), (_JSON, ("cache-control", "no-store")))


async def namespaces(call: SystemCall) -> Response:
    """List the namespaces and name the default one (GET), or create one (POST).

    The body of a POST is JSON: `{"name": NAME}`. A POST may be repeated: `created` in the answer says
    whether the namespace is new.
    """
    path, method = "/.settings/namespaces", call.request.method
    default = call.app.settings.default_namespace  # the request may name one that does not exist
    if method == "POST":
        await call.admin(path, write=True, namespace=default)
        name = _new_name(call.request.body)
        created = await call.app.on_thread(call.app.create_namespace, name)
        return Response(201 if created else 200, dump({"name": name, "created": created}), (_JSON,))
    if method not in ("GET", "HEAD"):
        raise MethodNotAllowed(f"Method {method[:20]!r} is not allowed.")
    await call.admin(path, write=False, namespace=default)
    names = await call.app.on_thread(call.app.namespaces)
    found = {"default": default, "namespaces": names}
    return Response(200, dump(found), (_JSON,))


def _new_name(body: bytes) -> str:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict) or not isinstance(asked.get("name"), str):
        raise UsageError('the body must be a JSON object with the namespace: {"name": "NAME"}')
    return str(asked["name"])


async def simulate(call: SystemCall) -> Response:
    """Answer whether rules would allow a read or write, and which rules decided.

    The body is JSON: `rules` (text; default: the rules in force), `method` (`read` or `write`),
    `path`, `auth` (what rules see as `auth`; null when unauthenticated) and, for a write, `value`.
    """
    await call.admin("/.settings/simulate", write=False)
    asked = _asked(call.request.body)
    explained = await call.app.on_thread(_try_rules, call, asked)
    return Response(200, dump(explained), (_JSON,))


def _asked(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict) or asked.get("method") not in ("read", "write"):
        raise UsageError(
            "the body must be a JSON object with method (read or write), path, auth, value and rules"
        )
    return asked


def _try_rules(call: SystemCall, asked: dict[str, Any]) -> dict[str, Any]:
    rules = _rules(call, asked.get("rules"))
    path = parse_path(asked.get("path", "/"))
    principal = _principal(asked.get("auth"))
    now_ms = int(SYSTEM.now() * 1000)
    with call.store().admin.snapshot() as view:
        if asked["method"] == "read":
            explanation = rules.explain_read(view, path, principal, now_ms)
        else:
            value = resolve(prepare(asked.get("value"), path).value, view.get, path, now_ms)
            places = [(path, value)]
            after = Overlay(view, places)
            explanation = rules.explain_write(view, after, places, principal, now_ms)
    return {"allowed": explanation.allowed, "trace": str(explanation).splitlines()}


def _rules(call: SystemCall, source: Any) -> RuleSet:
    if source is None:
        return call.store().rules or parse_rules('{"rules": {}}')
    if not isinstance(source, str):
        raise UsageError("rules must be a string")
    return parse_rules(source)


def _principal(auth: Any) -> Principal:
    if auth is None:
        return UNAUTHENTICATED
    if not isinstance(auth, dict):
        raise UsageError("auth must be null or an object with uid")
    return Principal(uid=str(auth.get("uid")), override=auth)
