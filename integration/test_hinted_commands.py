"""A command in an error, a help text, a page or the documentation runs unchanged."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path for pattern in ("packages/*/src", "apps/gateway/src") for path in ROOT.glob(pattern)
)
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "packages/*/README.md", "packages/*/js/README.md", "apps/*/README.md")
    for path in ROOT.glob(pattern)
    if path.name not in {"CHANGELOG.md", "STYLE.md"}
)  # fmt: skip
PROGRAMS = "platform|elkyn|emsqrt|strand|lake|elytra|pip|npm|nox|python -m pip|python -m"
COMMAND = re.compile(
    rf"`(?:\./)?((?:{PROGRAMS}) [^`\n]+)`|\b(pip install [^;\n]+)|(?:in|:) (npm ci .+)"
)
BLOCK = re.compile(r"```(?:sh|console|bash)?\n(.*?)```", re.DOTALL)
LINE = re.compile(rf"^(?:\$ )?(?:\./)?((?:{PROGRAMS}) .+)$", re.MULTILINE)


def commands_of_code() -> Iterator[tuple[str, str]]:
    """Commands in the strings of the Python code, docstrings left out, and of the playground."""
    for source in SOURCES:
        for path in source.rglob("*.py"):
            for text in strings(path):
                for found in COMMAND.finditer(text):
                    yield str(path.relative_to(ROOT)), next(filter(None, found.groups()))
    for folder in ("app", "components", "lib"):
        for path in (ROOT / "apps/playground" / folder).rglob("*.ts*"):
            text = path.read_text(encoding="utf-8")
            for found in re.finditer(rf"[`>]((?:{PROGRAMS}) [^`<$]+)[`<]", text):
                yield str(path.relative_to(ROOT)), found[1]


def strings(path: Path) -> Iterator[str]:
    """The string constants of a module; neighbours of an f-string are joined, its values are X."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            if isinstance(node.value, ast.Constant):
                parts.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            yield "".join(
                str(each.value) if isinstance(each, ast.Constant) else "X" for each in node.values
            )
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts
        ):
            yield node.value


def commands_of_pages() -> Iterator[tuple[str, str]]:
    """Commands in code spans and shell blocks of the documentation."""
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for block in BLOCK.findall(text):
            for line in LINE.findall(block):
                yield str(path.relative_to(ROOT)), line.partition("  #")[0]
        for span in re.findall(rf"`(?:\./)?((?:{PROGRAMS}) [^`]+)`", BLOCK.sub("", text)):
            yield str(path.relative_to(ROOT)), re.sub(r"\s+", " ", span)


@cache
def verbs_of(program: str) -> dict[str, set[str]]:
    """The verbs of a program, nested ones with a space, and the options of each."""
    if program in ("platform", "elytra"):
        import typer

        import elytra.cli.program
        from sennit.cli import app

        root = typer.main.get_command(app if program == "platform" else elytra.cli.program.app)
        found = {"": {option for p in root.params for option in p.opts}}
        for name, command in verbs_of_group(root):
            found[name] = {
                option for p in command.params for option in (*p.opts, *p.secondary_opts)
            }
        return found
    return dict(verbs_of_parser(parser_of(program)))


def verbs_of_group(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield f"{prefix}{name}", command
        if hasattr(command, "commands"):
            yield from verbs_of_group(command, f"{prefix}{name} ")


def parser_of(program: str) -> argparse.ArgumentParser:
    """The argparse parser of a package's command."""
    import elkyn.cli.program
    import emsqrt.cli.arguments
    import lake.cli.program
    import strand.cli

    makers: dict[str, Callable[[], argparse.ArgumentParser]] = {
        "elkyn": elkyn.cli.program._parser,
        "emsqrt": emsqrt.cli.arguments.parser,
        "lake": lake.cli.program.parser,
        "strand": strand.cli._parser,
    }
    return makers[program]()


def verbs_of_parser(
    parser: argparse.ArgumentParser, name: str = ""
) -> Iterator[tuple[str, set[str]]]:
    yield name, {option for action in parser._actions for option in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, nested in action.choices.items():
                yield from verbs_of_parser(nested, f"{name} {verb}".strip())


def problem_of(command: str) -> str | None:
    """Why a command would not run; None when it would."""
    command = command.partition(" && ")[0].partition(" | ")[0].strip()
    for program, check in CHECKS.items():
        if command.startswith(f"{program} "):
            return check(command.removeprefix(f"{program} "))
    name, _, rest = command.partition(" ")
    return problem_of_verb(name, rest)


def problem_of_verb(program: str, rest: str) -> str | None:
    if program == "platform" and rest.startswith("test"):
        return None  # the script at the root, see noxfile.py
    words = rest.split()
    known = verbs_of(program)
    if words[0].startswith("-"):
        return None if words[0].partition("=")[0] in known[""] | {"--help"} else f"no {words[0]}"
    for verb in re.split(r"\\?\|", words[0].rstrip(".,:")):
        if not re.fullmatch(r"[a-z][a-z-]*", verb):
            return None  # a placeholder, as in `platform VERB --help`
        if verb not in known:
            return f"{program} has no verb {verb}"
        allowed = {
            o for name, own in known.items() if name.split(" ")[0] in {verb, ""} for o in own
        }
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest):
            if flag not in allowed | {"--help"}:
                return f"{program} {verb} has no {flag}"
    return None


def problem_of_install(rest: str) -> str | None:
    """Sennit's packages are in no index: they are installed by path; other things by their names."""
    for word in re.findall(r"""'[^']+'|"[^"]+"|\S+""", rest.partition("   ")[0]):
        wanted = word.strip("'\"`").rstrip(".,:)")
        path, _, extras = wanted.partition("[")
        if path.startswith("sennit") or path in {"strand", "lake", "elkyn", "elytra", "emsqrt"}:
            return f"{path} is in no package index"
        if "/" in path and not re.search("[<X]", path):
            project = ROOT / path / "pyproject.toml"
            if not project.is_file():
                return f"no project at {path}"
            known = tomllib.loads(project.read_text())["project"].get("optional-dependencies", {})
            for extra in filter(None, extras.rstrip("]").split(",")):
                if extra not in known:
                    return f"{path} has no extra {extra}"
    return None


def problem_of_npm(rest: str) -> str | None:
    words = rest.split()
    if words[0] != "run":
        return None if words[0] in {"ci", "install", "pack", "test"} else f"npm has no {words[0]}"
    scripts: set[str] = set()
    for manifest in (
        ROOT / "package.json",
        *ROOT.glob("packages/*/js/package.json"),
        *ROOT.glob("apps/*/package.json"),
    ):
        scripts |= set(json.loads(manifest.read_text())["scripts"])
    return None if words[1] in scripts else f"no script {words[1]}"


def problem_of_nox(rest: str) -> str | None:
    sessions = set(
        re.findall(
            r"^@nox\.session.*?\ndef (\w+)",
            (ROOT / "noxfile.py").read_text(),
            re.MULTILINE | re.DOTALL,
        )
    )
    named = [
        word
        for word in re.sub(r"\(.*?\)", "", rest).partition(" -- ")[0].split()
        if not word.startswith("-")
    ]
    return next((f"no session {name}" for name in named if name not in sessions), None)


def problem_of_module(rest: str) -> str | None:
    name = rest.split()[0]
    return None if importlib.util.find_spec(name) else f"no module {name}"


CHECKS: dict[str, Callable[[str], str | None]] = {
    "python -m pip install": problem_of_install,
    "python -m": problem_of_module,
    "pip install": problem_of_install,
    "pip": lambda _rest: None,
    "npm": problem_of_npm,
    "nox": problem_of_nox,
}


@pytest.mark.parametrize(("source", "least"), [(commands_of_code, 15), (commands_of_pages, 60)])
def test_every_command_that_is_named_exists(
    source: Callable[[], Iterator[tuple[str, str]]], least: int
) -> None:
    found = sorted(set(source()))
    wrong = {
        f"{where}: `{command}`": problem
        for where, command in found
        if (problem := problem_of(command))
    }
    assert wrong == {}
    assert len(found) >= least, "the search has become blind"


@pytest.mark.parametrize(
    "command",
    [
        "platform dance", "platform sql --flag", "elkyn serve --prot 1", "lake verify-all", "elytra status",
        "strand ls --long", "pip install sennit-elkyn[server]", "pip install ./packages/pond",
        "pip install ./packages/lake[boat]", "npm run fly", "nox -s swim", "python -m sennit.nothing",
    ],
)  # fmt: skip
def test_the_check_sees_commands_that_do_not_exist(command: str) -> None:
    assert problem_of(command) is not None
