"""Response headers that isolate the playground from other origins."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from sennit._asgi import App, Message, Receive, Scope, Send

_INLINE_SCRIPT = re.compile(
    r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL | re.IGNORECASE
)
_ALWAYS = (
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-embedder-policy", b"require-corp"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


_POLICY = b"content-security-policy"
_FRAME = b"x-frame-options"
COMPUTE_SCRIPT = "/runtime/compute.js"
"""The script of compute workers, which generate kernels from the plans of tasks."""
COMPUTE_POLICY = "default-src 'none'; script-src 'self' 'unsafe-eval'; worker-src 'none'"
"""Its policy: it may evaluate text, and has no connection, no storage and no other worker to send to.

A worker has the policy of its own response, not that of the page or worker that started it (CSP 3,
section 4.2), so this one does not loosen theirs.
"""

SANDBOX_PAGE = "/runtime/sandbox.html"
"""The document of frames in which tabs call functions of others, if their users allow it."""
SANDBOX_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; worker-src blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""Its policy: an origin of its own, no request, and workers of its own text, which inherit all that.

The document has a second policy, which allows the one script in it by its hash; both count. An attribute
`srcdoc` in place of a file would inherit the policy of pages, which allows neither.
"""


class SecurityHeaders:
    """ASGI middleware: cross-origin isolation and a content security policy on every response."""

    def __init__(self, app: App, *, script_hashes: Iterable[str] = ()) -> None:
        self._app = app
        self._policy = b""
        self.allow_scripts(script_hashes)

    def allow_scripts(self, hashes: Iterable[str]) -> None:
        """Allow the inline scripts with these SHA-256 values, and no others."""
        self._policy = content_security_policy(hashes).encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI 3)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_isolated(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", []), *_ALWAYS]
                # Two files of the runtime have a policy of their own, which `Pages` sets.
                names = {name for name, _ in headers}
                if _POLICY not in names:
                    headers.append((_POLICY, self._policy))
                if _FRAME not in names:
                    headers.append((_FRAME, b"DENY"))
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_isolated)


def content_security_policy(script_hashes: Iterable[str]) -> str:
    """Return the policy: this origin only, inline scripts by hash, no eval, plugins or frames."""
    scripts = " ".join(["'self'", *(f"'sha256-{value}'" for value in sorted(set(script_hashes)))])
    return (
        f"default-src 'self'; script-src {scripts}; worker-src 'self' blob:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def inline_script_hashes(site: Path) -> set[str]:
    """Return the base64 SHA-256 of every inline script in the HTML files below `site`."""
    found: set[str] = set()
    for page in site.rglob("*.html"):
        if page == site / SANDBOX_PAGE.lstrip("/"):
            continue  # it has a policy of its own
        for script in _INLINE_SCRIPT.findall(page.read_text(encoding="utf-8")):
            found.add(base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"))
    return found
