"""A Python function as text that a node can run: its source, and the values that it uses.

The text has one maker for each function, whose parameters are the names that the function takes from
outside: closures, globals and modules.

    import math as _m0
    def _f0(math, rate):
        def price(row):
            return math.ceil(row.qty * rate)
        return price
    _v0 = _f0(_m0, 1.5)
    function = _v0

Text, because nobody has to load objects of strangers to look at it, and because equal functions have equal
plans on any version of Python. Values are literals: no pickle is made or read.
"""

from __future__ import annotations

import ast
import builtins
import datetime
import decimal
import dis
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from elytra.functions.step import PROGRAM_BYTES_MAX
from elytra.local.python_steps import NO_INITIAL
from sennit_core.errors import TooLarge, Unsupported

__all__ = ["program_of"]

_DEPTH_MAX = 50
_INT_BITS_MAX = 4096
_GLOBAL_READS = ("LOAD_GLOBAL", "LOAD_NAME")
_GLOBAL_WRITES = ("STORE_GLOBAL", "DELETE_GLOBAL")


def program_of(function: Callable[..., Any], initial: Any = NO_INITIAL) -> str:
    """Return the text of a function, which defines `function`, and `initial` if there is one.

    Raises:
        Unsupported: Its source is not there, or it uses a value that has no literal; both are named.
        TooLarge: The text has more than 256 KiB.
    """
    writer = _Writer()
    name = writer.value(function, "the function")
    lines = [*writer.lines, f"function = {name}"]
    if initial is not NO_INITIAL:
        value = writer.value(initial, "the initial value")
        lines = [*writer.lines, f"function = {name}", f"initial = {value}"]
    text = "\n".join(lines) + "\n"
    if len(text.encode()) > PROGRAM_BYTES_MAX:
        raise TooLarge(
            "the text of a Python function with the values that it uses",
            PROGRAM_BYTES_MAX,
            len(text.encode()),
            hint="upload large values as a dataset, and join it",
        )
    return text


class _Writer:
    """Collects the lines of a program; each function and module once."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._modules: dict[str, str] = {}
        self._functions: dict[int, str] = {}
        self._open: list[FunctionType] = []  # those that are being written, from the outermost

    def value(self, value: Any, where: str, depth: int = 0) -> str:
        """Return an expression for a value.

        Args:
            value: The value.
            where: Names it in errors.
            depth: Containers around it.
        """
        if depth > _DEPTH_MAX:
            raise Unsupported(f"{where} is nested too deeply, or contains itself")
        plain = _plain(value)
        if plain is not None:
            return plain
        if isinstance(value, ModuleType):
            return self._checked_module(value, where)
        if isinstance(value, FunctionType) and not _is_installed(value):
            return self._function(value)
        kind = type(value)
        if kind in (list, tuple, set, frozenset):
            items = [self.value(item, where, depth + 1) for item in value]
            return _collection(kind, sorted(items) if kind in (set, frozenset) else items)
        if kind is dict:
            pairs = (
                f"{self.value(key, where, depth + 1)}: {self.value(item, where, depth + 1)}"
                for key, item in value.items()
            )
            return "{" + ", ".join(pairs) + "}"
        if kind in (datetime.date, datetime.datetime, datetime.time, datetime.timedelta):
            return self._dated(value, where)
        if kind is decimal.Decimal:
            return f"{self._module('decimal')}.Decimal({str(value)!r})"
        if (imported := self._imported(value)) is not None:
            return imported
        raise Unsupported(
            f"{where} is {kind.__name__}, which is not sent to a node: plain values, modules, and "
            "functions that are written in Python are",
            hint="compute it inside the function, or wrap it in a lambda",
        )

    def _checked_module(self, module: ModuleType, where: str) -> str:
        name = module.__name__
        if name not in sys.builtin_module_names and not _is_installed_module(name):
            raise Unsupported(
                f"{where} is the module {name}, which is not of an installed package",
                hint="import the functions that it needs by name: these are sent",
            )
        return self._module(name)

    def _module(self, name: str) -> str:
        if name not in self._modules:
            self._modules[name] = f"_m{len(self._modules)}"
            self.lines.append(f"import {name} as {self._modules[name]}")
        return self._modules[name]

    def _dated(self, value: Any, where: str) -> str:
        zone = getattr(value, "tzinfo", None)
        if zone not in (None, datetime.UTC):
            raise Unsupported(f"{where} has the time zone {zone}; only UTC is sent")
        return self._module("datetime") + repr(value).removeprefix("datetime").replace(
            "tzinfo=datetime.", f"tzinfo={self._module('datetime')}."
        )

    def _imported(self, value: Any) -> str | None:
        """Return an expression for a class or function of a module that a node may have."""
        if not isinstance(value, type | FunctionType | BuiltinFunctionType):
            return None
        module = getattr(value, "__module__", None) or ""
        name = value.__qualname__
        found: Any = sys.modules.get(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is not value or module == "__main__" or not _is_installed(value):
            return None
        return name if module == "builtins" else f"{self._module(module)}.{name}"

    def _function(self, function: FunctionType) -> str:
        if id(function) in self._functions:
            return self._functions[id(function)]
        label = function.__name__
        if function in self._open:
            raise Unsupported(
                f"{label} and a function that it uses call each other: put one into the other"
            )
        self._open.append(function)
        outside = _outside(function)
        itself = sorted(name for name, value in outside.items() if value is function)
        names = sorted(name for name in outside if name not in itself)
        values = [self.value(outside[name], f"{name}, which {label} uses,") for name in names]
        node = _with_values(_syntax(function), function, self)
        self._open.pop()
        number = len(self._functions)
        body = [node] if isinstance(node, ast.FunctionDef) else []
        made = node.name if isinstance(node, ast.FunctionDef) else ast.unparse(node)
        lines = ["\n".join(map(ast.unparse, body))] if body else []
        if isinstance(node, ast.Lambda):
            lines.append(f"_made = {made}")
            made = "_made"
        lines += [f"{name} = {made}" for name in itself if name != made]
        text = "\n".join([*lines, f"return {made}"])
        indented = "\n".join(f"    {line}" for line in text.split("\n"))
        self.lines.append(f"def _f{number}({', '.join(names)}):\n{indented}")
        self.lines.append(f"_v{number} = _f{number}({', '.join(values)})")
        self._functions[id(function)] = f"_v{number}"
        return f"_v{number}"


def _plain(value: Any) -> str | None:
    """Return the literal of a value that has one."""
    kind = type(value)
    if value is None or value is Ellipsis or kind in (bool, str, bytes):
        return repr(value)
    if kind is int and value.bit_length() <= _INT_BITS_MAX:
        return repr(value)
    if kind is float:
        return repr(value) if value - value == 0 else f"float({str(value)!r})"
    return None


def _collection(kind: type, items: list[str]) -> str:
    joined = ", ".join(items)
    if kind is list:
        return f"[{joined}]"
    if kind is tuple:
        return f"({joined},)" if items else "()"
    return f"{kind.__name__}([{joined}])"


def _outside(function: FunctionType) -> dict[str, Any]:
    """Return the names that a function takes from outside, with their values; builtins are not needed."""
    code = function.__code__
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise Unsupported(f"{function.__name__} is asynchronous; a function over rows is not")
    found: dict[str, Any] = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if name == "__class__":
            raise Unsupported(f"{function.__name__} uses super() or __class__")
        try:
            found[name] = cell.cell_contents
        except ValueError:
            raise Unsupported(f"{name}, which {function.__name__} uses, has no value yet") from None
    for name in sorted(set(_globals_of(code, function.__name__))):
        if name in function.__globals__:
            found.setdefault(name, function.__globals__[name])
        elif not hasattr(builtins, name):
            raise Unsupported(f"{name}, which {function.__name__} uses, is not defined")
    return found


def _globals_of(code: CodeType, label: str) -> Iterator[str]:
    for step in dis.get_instructions(code):
        if step.opname in _GLOBAL_WRITES:
            raise Unsupported(
                f"{label} assigns the global variable {step.argval}: each task would have its own",
                hint="return the value, or use reduce",
            )
        if step.opname in _GLOBAL_READS:
            yield str(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals_of(constant, label)


def _syntax(function: FunctionType) -> ast.FunctionDef | ast.Lambda:
    """Return the syntax tree of a function, from its source as it was loaded.

    Raises:
        Unsupported: There is no source, or the file is another by now.
    """
    code, label = function.__code__, function.__name__
    try:
        lines, _ = inspect.findsource(code)
        tree, compiled = _parsed("".join(lines), code.co_filename)
    except (OSError, SyntaxError, ValueError):
        raise Unsupported(
            f"the source of {label} is not there",
            hint="define it in a file or in a cell of a notebook, not in text that is executed",
        ) from None
    # Code objects are equal if their instructions, constants, names and line numbers are.
    if code not in compiled:
        raise Unsupported(
            f"the source of {label} has changed since it was loaded", hint="load its module again"
        )
    wanted = ast.Lambda if label == "<lambda>" else ast.FunctionDef
    found = [node for node in ast.walk(tree) if isinstance(node, wanted) and _is_of(node, code)]
    if len(found) > 1 and wanted is ast.Lambda:
        found = _innermost(found, code)
    if len(found) != 1:
        raise Unsupported(f"{len(found)} functions {label} begin in line {code.co_firstlineno}")
    node = found[0]
    assert isinstance(node, ast.FunctionDef | ast.Lambda)
    return node


@lru_cache(maxsize=16)
def _parsed(source: str, filename: str) -> tuple[ast.Module, frozenset[CodeType]]:
    tree = ast.parse(source, filename)
    return tree, frozenset(_codes(compile(source, filename, "exec", dont_inherit=True)))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _is_of(node: ast.AST, code: CodeType) -> bool:
    if isinstance(node, ast.FunctionDef):
        first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        return node.name == code.co_name and first == code.co_firstlineno
    return isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno


def _innermost(nodes: list[Any], code: CodeType) -> list[Any]:
    """Return the smallest of several lambdas of one line that has all instructions of the code."""
    places = [
        (line, column, end, end_column)
        for line, end, column, end_column in code.co_positions()
        if None not in (line, end, column, end_column) and (end_column or column)
    ]

    def has_all(body: ast.expr) -> bool:
        start, stop = (body.lineno, body.col_offset), (body.end_lineno, body.end_col_offset)
        return all(start <= (a, b) and (c, d) <= stop for a, b, c, d in places)

    having = [node for node in nodes if has_all(node.body)]
    return sorted(having, key=lambda node: node.body.end_col_offset - node.body.col_offset)[:1]


def _with_values(
    node: ast.FunctionDef | ast.Lambda, function: FunctionType, writer: _Writer
) -> ast.FunctionDef | ast.Lambda:
    """Return a copy of a tree without annotations and decorators, with the values of its defaults.

    Docstrings are dropped too: only they would be written with lines that cannot be indented.
    """
    (copied,) = ast.parse(ast.unparse(node)).body
    found = copied.value if isinstance(copied, ast.Expr) else copied
    assert isinstance(found, ast.FunctionDef | ast.Lambda)
    arguments = found.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    for argument in filter(None, [*every, arguments.vararg, arguments.kwarg]):
        argument.annotation = None
    if isinstance(found, ast.FunctionDef):
        found.returns, found.decorator_list = None, []
    for each in ast.walk(found):
        if isinstance(each, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(each) is not None:
            each.body = each.body[1:] or [ast.Pass()]
    where = f"a default of {function.__name__}"
    defaults = [writer.value(value, where) for value in function.__defaults__ or ()]
    arguments.defaults = list(map(_expression, defaults))
    named: Mapping[str, Any] = function.__kwdefaults__ or {}
    arguments.kw_defaults = [
        _expression(writer.value(named[each.arg], where)) if each.arg in named else None
        for each in arguments.kwonlyargs
    ]
    return found


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


@lru_cache(maxsize=1)
def _installed_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple(Path(paths[kind]).resolve() for kind in kinds)


def _is_installed(value: Any) -> bool:
    """Return whether a class or function is of a package, which a node may have, and not the user's."""
    module = getattr(value, "__module__", None)
    return isinstance(module, str) and _is_installed_module(module)


def _is_installed_module(module: str) -> bool:
    if module.partition(".")[0] in sys.stdlib_module_names:
        return module != "__main__"
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return False
    place = Path(file).resolve()
    return any(place.is_relative_to(folder) for folder in _installed_folders())
