"""What the documentation names exists, or is marked *planned* and listed in docs/not-yet.md.

Names are looked for in code spans, tables and code blocks: modules, files, routes, options,
settings, ports, environment variables, and other names of code. Commands are the subject of
`test_hinted_commands.py`. Everything is compared with the sources as they are, so that a rename makes the
pages fail that still have the old name.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import importlib.util
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from unittest.mock import Mock

import pytest
from fastapi import APIRouter, FastAPI
from starlette.routing import WebSocketRoute

import elytra.routes
import lake.routes
from sennit.routes import bundles
from sennit.routes import network as network_routes
from sennit.routes import node as node_routes
from sennit.settings import Settings
from test_hinted_commands import verbs_of
from workspace import packages

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["ARCHITECTURE.md", "CONTRACTS.md", "CONTRIBUTING.md", "README.md", "STYLE.md"]
PAGES += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))
NOT_YET = "docs/not-yet.md"
MODULES = {package.module for package in packages()}
SECTIONS = {field.name: field for field in dataclasses.fields(Settings)}
ENTRY_POINTS = {
    name
    for package in packages()
    for group in package.project["project"].get("entry-points", {}).values()
    for name in group
}
CODE = {".py", ".pyi", ".c", ".h", ".ts", ".tsx", ".js", ".mjs", ".json", ".toml", ".css"}
MODULE_FILES = {".py", ".pyi", ".c", ".h", ".ts", ".tsx", ".mjs", ".md"}
ENDINGS = r"py|pyi|c|h|ts|tsx|mjs|md|toml|json|txt|cfg|token|log|mdb"
Name = tuple[str, str]  # what kind of name it is, and the name


@cache
def served() -> frozenset[str]:
    """The gateway's routes, such as `GET /api/jobs/{}`."""
    routers = (
        node_routes.router(Mock(version="0"), Mock()),
        network_routes.router(Mock(), Mock()),
        bundles.router(Mock(), Mock()),
        lake.routes.router(Mock(), Mock()),
        elytra.routes.router(Mock()),
    )
    api = FastAPI()
    for router in routers:
        api.include_router(router)
    routes = {
        f"{method.upper()} {unnamed(path)}"
        for path, methods in api.openapi()["paths"].items()
        for method in methods
    }
    sockets = {f"WS {route.path}" for route in iter_sockets(routers)}
    return frozenset(routes | sockets | {"GET /docs", "GET /api/openapi.json"})


def iter_sockets(routers: Iterable[APIRouter]) -> Iterator[WebSocketRoute]:
    for router in routers:
        for route in router.routes:
            inside = getattr(route, "original_router", None)
            if inside is not None:
                yield from iter_sockets([inside])
            elif isinstance(route, WebSocketRoute):
                yield route


def unnamed(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path.rstrip("/"))


@cache
def prefixes() -> frozenset[str]:
    """The first parts of the gateway's paths."""
    return frozenset(route.split("/")[1] for route in served())


@cache
def tracked() -> tuple[str, ...]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return tuple(name for name in done.stdout.splitlines() if (ROOT / name).is_file())


@cache
def folders() -> frozenset[str]:
    return frozenset(str(parent) for name in tracked() for parent in Path(name).parents)


@cache
def sources() -> str:
    """The text of all code, tests and configuration."""
    own = str(Path(__file__).relative_to(ROOT))
    chosen = [name for name in tracked() if Path(name).suffix in CODE or "/" not in name]
    texts = [ROOT / name for name in chosen if not name.endswith(".md") and name != own]
    return "\n".join(path.read_text(encoding="utf-8") for path in texts)


@cache
def shipped(folder: str = "") -> str:
    """The text of the code that users run, or of the part of it in a folder."""
    chosen = [name for name in tracked() if "/src/" in name and Path(name).suffix in CODE]
    chosen = [name for name in chosen if name.startswith(folder)]
    return "\n".join((ROOT / name).read_text(encoding="utf-8") for name in chosen)


@cache
def words() -> frozenset[str]:
    return frozenset(re.findall(r"[A-Za-z_$]\w*", sources()))


@cache
def numbers() -> frozenset[str]:
    return frozenset(re.findall(r"[=:,(] ?(\d{4,5})\b", shipped()))


@cache
def own_words(page: str) -> frozenset[str]:
    """The words of a page's own examples."""
    blocks = re.findall(r"^```.*?^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    return frozenset(re.findall(r"[A-Za-z_][\w.]*|[A-Za-z_]\w*", " ".join(blocks)))


@cache
def options() -> frozenset[str]:
    """The options of all commands, of pytest and nox, and of the repository's scripts."""
    programs = {
        name for package in packages() for name in package.project["project"].get("scripts", {})
    }
    own = {
        option for program in programs for found in verbs_of(program).values() for option in found
    }
    return frozenset(own | set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", sources())))


def is_module(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one or of its classes."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            if importlib.util.find_spec(".".join(parts[:length])) is None:
                continue
        except ModuleNotFoundError:
            continue
        found: object = importlib.import_module(".".join(parts[:length]))
        for attribute in parts[length:]:
            if not hasattr(found, attribute):
                fields = getattr(found, "__dataclass_fields__", {})
                return attribute in fields or attribute in getattr(found, "__annotations__", {})
            found = getattr(found, attribute)
        return True
    return False


def is_label(name: str) -> bool:
    """Whether a dotted name is an entry point, or text of the code such as a logger's name."""
    return name in ENTRY_POINTS or f'"{name}"' in shipped()


def is_setting(name: str) -> bool:
    section, _, key = name.partition(".")
    if section not in SECTIONS:
        return False
    made = SECTIONS[section].default_factory
    assert callable(made)
    return key in {field.name for field in dataclasses.fields(made())}


def is_file(name: str, page: str) -> bool:
    """Whether a path or pattern is in the repository, or is a name that the code writes."""
    pattern = re.sub(r"<[^>]*>|NNNN-|\{[^}]*\}", "*", name).rstrip("/")
    places = (pattern, str(Path(page).parent / pattern), f"*/{pattern}")
    known = folders() if name.endswith("/") else (*tracked(), *folders())
    if any(fnmatch.fnmatch(path, place) for place in places for path in known):
        return True
    parts = [part for part in re.sub(r"<[^>]*>|DIR|\*", "", name).split("/") if part.strip("-")]
    if pattern in own_words(page):
        return True
    return Path(name).suffix not in MODULE_FILES and all(f'"{part}"' in shipped() for part in parts)


def is_route(name: str) -> bool:
    """Whether a route of the gateway is served, or the code has the path of another."""
    methods, _, path = name.rpartition(" ")
    path = path.partition("?")[0]
    if path.split("/")[1] in prefixes():
        wanted = {f"{method} {unnamed(path)}" for method in methods.split()}
        return wanted <= served() and any(route.endswith(f" {unnamed(path)}") for route in served())
    fixed = re.split(r"[{…<$]", path)[0].removesuffix(".json")
    return f'"{fixed}' in shipped("packages")


def is_environment(name: str) -> bool:
    if found := re.fullmatch(r"SENNIT_([A-Z]+)__([A-Z_]+)", name):
        return is_setting(f"{found[1]}.{found[2]}".lower())
    field = name.removeprefix("EMSQRT_").lower()
    return name in words() or (name.startswith("EMSQRT_") and field in words())


KINDS: dict[str, Callable[[str, str], bool]] = {
    "module": lambda name, _page: is_module(name) or is_setting(name) or is_label(name),
    "file": is_file,
    "route": lambda name, _page: is_route(name),
    "option": lambda name, _page: name in options(),
    "environment variable": lambda name, _page: is_environment(name),
    "port": lambda name, _page: name in numbers(),
    "name": lambda name, page: set(re.findall(r"[A-Za-z_]\w*", name)) <= words() | own_words(page),
}


def names_of_span(span: str) -> Iterator[Name]:
    """The names in one code span."""
    if "://" in span:
        return
    roots = "|".join(sorted(MODULES))
    if re.fullmatch(rf"({roots})(\.\w+)+(\(.*)?", span):
        yield "module", span.partition("(")[0]
        return
    for route in routes_of(span):
        yield "route", route
    for word in span.split():
        if re.fullmatch(rf"[\w@.<>*{{}},-]+(/[\w@.<>*{{}},-]+)*(/|\.({ENDINGS}))", word):
            yield "file", word
        elif re.fullmatch(r"(SENNIT|EMSQRT|ELKYN)_[A-Z0-9_]+", word):
            yield "environment variable", word
    yield from (("option", name) for name in re.findall(r"(?<![\w-])--[a-z][a-z-]+", span))
    if re.fullmatch(r"\w*\{.*\}", span):  # the members of a request, response or message
        members = re.sub(r'"[^"]*"|: \[?true\]?', "", span) if ":" in span else span
        yield from (("name", name) for name in re.findall(r"[A-Za-z]\w+", members))
    is_file_name = re.search(rf"\.({ENDINGS})$", span)
    if re.fullmatch(r"[A-Za-z_][\w.]*(\(.*\))?", span) and not is_file_name:
        plain = span.partition("(")[0]
        if "_" in plain or re.search("[a-z][A-Z]", plain) or re.fullmatch(r"[A-Z]\w+\.\w+", plain):
            yield "name", plain


def routes_of(text: str) -> Iterator[str]:
    """The routes that a span names: `GET /a[/{id}]` is two, `/a/{b,c}.json` likewise."""
    firsts = "|".join(sorted(map(re.escape, prefixes() | {".settings", ".replica", "auth", "tus"})))
    method = "|".join(["GET", "POST", "PUT", "DELETE", "PATCH", "WS"])
    for found in re.finditer(
        rf"((?:(?:{method}) )*)(/(?:{firsts})(?:[/?.][^\s`,]*|\b(?=[\s`?]|$)))", text
    ):
        for path in alternatives(found[2].partition("?")[0]):
            yield f"{found[1]}{path}".strip()


def alternatives(path: str) -> Iterator[str]:
    if found := re.search(r"\[([^\]]*)\]", path):
        for choice in ("", found[1]):
            yield from alternatives(path[: found.start()] + choice + path[found.end() :])
    elif found := re.search(r"\{([^}]*,[^}]*)\}", path):
        for choice in found[1].split(","):
            yield from alternatives(path[: found.start()] + choice + path[found.end() :])
    else:
        yield path


def names_of_block(language: str, code: str) -> Iterator[Name]:
    """The names in a code block: imports of Python, settings of TOML, routes of the shell."""
    if language.startswith("python"):
        for module, imported in re.findall(
            r"^\s*from ([\w.]+) import ([^(\n#]+|\([^)]*\))", code, re.MULTILINE
        ):
            if module.partition(".")[0] in MODULES:
                for name in re.findall(r"\w+(?: as \w+)?", imported):
                    yield "module", f"{module}.{name.partition(' as ')[0]}"
    elif language == "toml":
        section = ""
        for line in code.splitlines():
            if found := re.match(r"\[(\w+)\]", line):
                section = found[1]
            elif (found := re.match(r"(\w+) *=", line)) and section in SECTIONS:
                yield "module", f"{section}.{found[1]}"
    else:
        yield from (("route", route) for route in routes_of(code) if "/api" in route)
        for name in re.findall(r"\b(?:SENNIT|EMSQRT|ELKYN)_[A-Z_]+\b", code):
            yield "environment variable", name


def parts_of(page: str) -> Iterator[tuple[int, str, list[Name]]]:
    """Each row of a table, paragraph and code block of a page: line, text and names."""
    block: list[str] = []
    kind = header = ""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate([*lines, ""], 1):
        is_fence = line.lstrip().startswith("```")
        now = kind if kind.startswith("```") else "|" if line.startswith("|") else "text"
        starts = line.lstrip().startswith(("- ", "#")) or re.match(r" *\d+\. ", line)
        if block and (
            is_fence
            or now != kind
            or kind == "|"
            or (starts and kind == "text")
            or not (line or kind.startswith("```"))
        ):
            yield number - len(block), "\n".join(block), list(names_of_part(kind, header, block))
            block = []
        if is_fence:
            kind = "" if kind.startswith("```") else line.strip()
        elif line:
            header = line if now == "|" != kind else header
            kind = now
            block.append(line)


def names_of_part(kind: str, header: str, lines: list[str]) -> Iterator[Name]:
    text = "\n".join(lines)
    if kind.startswith("```"):
        yield from names_of_block(kind.removeprefix("```"), text)
        return
    spans = [
        re.sub(r"\s+", " ", span.replace("\\|", "|")) for span in re.findall(r"`([^`]+)`", text)
    ]
    first = spans[0] if kind == "|" and spans else ""
    folder = first if re.search(r"/src/.*/$", first) else ""
    for place, span in enumerate(spans):
        for what, name in names_of_span(span):
            yield what, f"{folder}{name}" if place and name.endswith("/") else name
    if re.search(r"\bport\b", header) and kind == "|":
        yield from (("port", port) for port in re.findall(r"\| (\d{4,5}) \|", text))
    yield from (
        ("port", port) for port in re.findall(r"(?:localhost|127\.0\.0\.1|\s):(\d{4})\b", text)
    )


def missing_of(page: str) -> Iterator[tuple[int, str, Name]]:
    for number, text, names in parts_of(page):
        for kind, name in names:
            if not KINDS[kind](name, page):
                yield number, text, (kind, name)


def is_planned(text: str, name: str) -> bool:
    listed = (ROOT / NOT_YET).read_text(encoding="utf-8")
    return bool(re.search(r"\*planned\b", text, re.IGNORECASE)) and name in listed


@pytest.mark.parametrize("page", [page for page in PAGES if page != NOT_YET])
def test_names_on_a_page_exist_or_are_planned(page: str) -> None:
    wrong = [
        f"{page}:{number}: no {kind} {name}"
        for number, text, (kind, name) in missing_of(page)
        if not is_planned(text, name)
    ]
    assert wrong == [], f"rename it, or mark it *planned* and add it to {NOT_YET}"


def test_the_search_finds_names_of_every_kind() -> None:
    found = {kind for page in PAGES for _, _, names in parts_of(page) for kind, _ in names}
    assert found == set(KINDS), "the search has become blind"


def test_nothing_that_exists_is_listed_as_missing() -> None:
    kinds = ("module", "file", "route", "option", "port")
    named = {name for _, _, names in parts_of(NOT_YET) for name in names if name[0] in kinds}
    missing = {name for _, _, name in missing_of(NOT_YET)}
    assert named <= missing
