"""The HTTP API documentation on one page, from its OpenAPI document, without external resources."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sennit API</title>
<meta name="viewport" content="width=device-width">
<style>
  :root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
  body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
  td, th {{ text-align: left; padding: .3rem 1rem .3rem 0; vertical-align: top }}
  code {{ font: .9em ui-monospace, monospace }}
</style></head>
<body><h1>Sennit API</h1>
<p>Version {version}. The machine-readable form is at <a href="/api/openapi.json"><code>/api/openapi.json</code></a>.
Every request needs <code>Authorization: Bearer …</code> or the browser's cookie; errors are
<code>{{"error", "code", "hint", "details"}}</code>.</p>
{tables}</body></html>
"""


def docs_page(openapi: dict[str, Any]) -> str:
    """Return HTML for an OpenAPI document: a table of routes for each tag."""
    tables: dict[str, list[str]] = {}
    for tag, method, path, summary in _routes(openapi):
        row = f"<tr><td><code>{method}</code><td><code>{escape(path)}</code><td>{escape(summary)}"
        tables.setdefault(tag, []).append(row)
    html = "".join(
        f"<h2>{escape(tag)}</h2><table>{''.join(rows)}</table>" for tag, rows in tables.items()
    )
    return _PAGE.format(version=escape(openapi["info"]["version"]), tables=html)


def _routes(openapi: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            summary = operation.get("description") or operation.get("summary", "")
            tag = (operation.get("tags") or ["other"])[0]
            yield tag, method.upper(), path, summary.partition("\n")[0]
