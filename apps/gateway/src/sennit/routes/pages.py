"""The pages for browsers: the exported playground, or a placeholder while it is being built."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response

from sennit import playground
from sennit._asgi import App, Receive, Scope, Send
from sennit.auth import AccessControl
from sennit.routes.node import set_session_cookie
from sennit.security_headers import (
    COMPUTE_POLICY,
    COMPUTE_SCRIPT,
    SANDBOX_PAGE,
    SANDBOX_POLICY,
    SecurityHeaders,
    inline_script_hashes,
)

_BUILDING = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sennit</title>
<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="3">
<style>
  :root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
  body { min-height: 90vh; display: grid; place-content: center; max-width: 34rem; margin: auto; padding: 1rem }
  code { font: .9em ui-monospace, monospace }
</style></head>
<body><main><h1>The playground is %s</h1><p>%s</p>
<p>The node itself is up: <code>platform put FILE.csv</code>, then <code>platform sql "select …"</code>.</p>
</main></body></html>
"""


class Pages:
    """ASGI app for all paths outside the API: static files with cache headers."""

    def __init__(self, access: AccessControl) -> None:
        self._access = access
        self._headers: SecurityHeaders | None = None
        self._site: Path | None = None
        self._problem: str | None = None

    def behind(self, headers: SecurityHeaders) -> None:
        """Set the middleware that must allow the site's inline scripts once the site exists."""
        self._headers = headers
        self._look()

    def failed(self, problem: str) -> None:
        """Show on the placeholder page why there is no playground."""
        self._problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI 3)."""
        await self._answer(scope)(scope, receive, send)

    def _answer(self, scope: Scope) -> App:
        if scope["method"] not in {"GET", "HEAD"}:
            return _refusal(405, "this path only answers GET")
        token = dict(parse_qsl(_query(scope))).get("token", "")
        if token and self._access.tokens.principal(token):
            # Redirect to remove the token from the address bar; the cookie authenticates from now
            # on.
            response: Response = RedirectResponse(_without_token(scope), status_code=303)
            set_session_cookie(
                response, self._access.cookie, token, secure=scope["scheme"] == "https"
            )
            return response
        site = self._site or self._look()
        if site is None:
            return _building_page(self._problem)
        return _file(site, scope)

    def _look(self) -> Path | None:
        site = None if playground.can_build() and self._problem is None else playground.site()
        if site is not None and self._headers is not None:
            self._headers.allow_scripts(inline_script_hashes(site))
            self._site = site
        return site


def _without_token(scope: Scope) -> str:
    r"""Return the requested address without the token, always on this node.

    Browsers interpret `//name/` and `/\name/` in a Location header as another host.
    """
    others = [pair for pair in parse_qsl(_query(scope)) if pair[0] != "token"]
    return _local(scope["path"], urlencode(others))


def _local(path: str, query: str) -> str:
    return "/" + path.lstrip("/\\") + (f"?{query}" if query else "")


def _query(scope: Scope) -> str:
    return str(scope["query_string"].decode("latin-1"))


def _file(site: Path, scope: Scope) -> Response:
    path: str = scope["path"]
    wanted = _place(site, path)
    if wanted is None:
        return _refusal(404, "no such page")
    if (wanted / "index.html").is_file():
        wanted = wanted / "index.html"
    if wanted.name == "index.html" and wanted.is_file():
        # Exported HTML belongs to one address. Under another (`/data`, `/data/index.html`) the page
        # renders differently in the browser, and React reports error 418.
        folder = wanted.parent.relative_to(site.resolve()).as_posix()
        address = "/" if folder == "." else f"/{folder}/"
        if path != address:
            return RedirectResponse(_local(address, _query(scope)), status_code=308)
    if not wanted.is_file():
        missing = site / "404.html"
        if missing.is_file() and "." not in Path(path).name:
            return FileResponse(missing, status_code=404)
        return _refusal(404, "no such page")
    # Names below _next contain a hash of the content; all other files must be revalidated.
    forever = path.startswith("/_next/static/")
    headers = {"cache-control": "public, max-age=31536000, immutable" if forever else "no-cache"}
    if path == COMPUTE_SCRIPT:
        headers["content-security-policy"] = COMPUTE_POLICY
    if path == SANDBOX_PAGE:
        headers["content-security-policy"] = SANDBOX_POLICY
        headers["x-frame-options"] = "SAMEORIGIN"
    return FileResponse(wanted, headers=headers)


def _place(site: Path, path: str) -> Path | None:
    """Return the file below `site` for a path; None if the path is invalid or leads outside."""
    try:
        wanted = (site / path.lstrip("/")).resolve()
        wanted.is_dir()
    except (ValueError, OSError):  # a NUL byte, a name that is too long
        return None
    return wanted if wanted.is_relative_to(site.resolve()) else None


def _building_page(problem: str | None) -> Response:
    if problem is None:
        html = _BUILDING % (
            "being built",
            "This page reloads when the playground is ready, usually within a minute.",
        )
    else:
        escaped = problem.replace("&", "&amp;").replace("<", "&lt;")
        html = _BUILDING % ("not available", f"<code>{escaped}</code>")
    return HTMLResponse(html, status_code=200 if problem is None else 503)


def _refusal(status: int, problem: str) -> Response:
    body = {"error": problem, "code": "not-found" if status == 404 else "usage", "hint": None}
    return JSONResponse(body, status_code=status)
