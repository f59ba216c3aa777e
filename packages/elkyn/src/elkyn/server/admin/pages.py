"""Serves the dashboard's files from the wheel: plain modules, no build step, no external resources."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path as FilePath
from urllib.parse import quote, urlencode

from elkyn.server.request import Request, Response, parse_tree_path

__all__ = ["opened_by_browser", "page", "to_dashboard"]

_FOLDER = FilePath(__file__).resolve().parents[2] / "dashboard"
_PREFIX = "/.dashboard/"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = (
    ("cache-control", "no-cache"),
    ("content-security-policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
)


def page(path: str, known_etag: str | None = None) -> Response | None:
    """Answer a request for a page.

    Args:
        path: `/index.html`, or `/.dashboard/` and the name of a file.
        known_etag: the etag of the client's cached copy.

    Returns:
        None when `path` names no page.
    """
    name = "index.html" if path == "/index.html" else path.removeprefix(_PREFIX)
    files = _files()
    if name not in files or (path != "/index.html" and not path.startswith(_PREFIX)):
        return None
    body, etag = files[name]
    headers = (*_HEADERS, ("etag", etag))
    if known_etag == etag:
        return Response(304, headers=headers)
    return Response(200, body, (("content-type", _TYPES[FilePath(name).suffix]), *headers))


def opened_by_browser(request: Request) -> bool:
    """Whether a user opens a path of the tree in a browser.

    Browsers accept `text/html` when they open an address; SDKs, curl and `fetch` do not. With a
    parameter other than the namespace, the request is for the value itself.
    """
    return (
        request.method in ("GET", "HEAD")
        and "text/html" in request.headers.get("accept", "")
        and not request.query.keys() - {"ns"}
        and not request.raw_path.endswith("/.watch")
    )


def to_dashboard(request: Request, root: str) -> Response:
    """Redirect a browser to the dashboard, at the path that it has opened.

    Args:
        request: for a path of the tree without `.json`.
        root: where the app is mounted; empty at the root of the server.

    Raises:
        BadPath: a key breaks a limit.
    """
    keys, _watch = parse_tree_path(request.raw_path)
    query = f"?{urlencode(request.query)}" if request.query else ""
    path = f"#data/{'/'.join(quote(key, safe='') for key in keys)}" if keys else ""
    location = f"{quote(root)}/index.html{query}{path}"
    return Response(302, headers=(("location", location), ("cache-control", "no-store")))


@cache
def _files() -> dict[str, tuple[bytes, str]]:
    found = {}
    for file in sorted(_FOLDER.iterdir()):
        if file.suffix in _TYPES:
            body = file.read_bytes()
            found[file.name] = (body, f'"{hashlib.sha256(body).hexdigest()[:20]}"')
    return found
