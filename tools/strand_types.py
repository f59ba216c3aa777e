"""Write what names every field type of Strand, from the table in `_types.h`.

    python tools/strand_types.py            # after a change of the table, and a build of the C
    python tools/strand_types.py --check    # fail when a file is not up to date

Writes js/src/types.ts, the getters in _native.pyi, and the types in spec/strand-wire.md and the
READMEs. The rows come from the built extension, so there is one reader of the table.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from strand.fields import ELEMENTS, FIELD_TYPES, FieldType

ROOT = Path(__file__).resolve().parents[1]
TYPES = tuple(FIELD_TYPES.values())
LINE = 100

# What the Python getter of a kind returns; arrays are memoryviews of their numbers.
PYTHON_RESULTS = {
    "integer": "int | None",
    "float": "float | None",
    "boolean": "bool | None",
    "handle": "str | int | None",
    "text": "str | None",
    "json": "Any",
    "bytes": "memoryview | None",
}

# The TypeScript getter of a kind: comment, result, and the value at byte `at` of the ring.
SCRIPT_GETTERS = {
    "integer": ("", "{primitive}", "this.view.get{element}({at})"),
    "float": ("", "{primitive}", "this.view.get{element}({at})"),
    "boolean": ("", "boolean", "this.view.getUint8(at) !== 0"),
    "handle": (
        "The string of a handle; null also when the intern table has no such handle.",
        "string",
        "this.interned(this.view.getUint32(at, true))",
    ),
    "text": ("Decoded once for a record.", "string", "(this.decoded(name, at) as string)"),
    "json": ("Parsed once for a record.", "unknown", "this.decoded(name, at)"),
    "bytes": ("A view into the ring, not a copy.", "Uint8Array", "this.items(at, Uint8Array)"),
    "array": ("A view into the ring, not a copy.", "{array}", "this.items(at, {array})"),
}

VALUES = {
    "integer": "{element}",
    "float": "{element}",
    "boolean": "byte, nonzero is true",
    "handle": "{element}, a position in the intern table",
    "text": "UTF-8 in the heap",
    "json": "JSON as UTF-8 in the heap",
    "bytes": "bytes in the heap",
    "array": "array of {element} in the heap",
}


def script_element(row: FieldType) -> str:
    """Return the name of a DataView method and typed array: Int32, BigInt64, Float32."""
    element = ELEMENTS[row.code].capitalize()
    return f"Big{element}" if element == "Int64" else element


def script_primitive(row: FieldType) -> str:
    """Return the TypeScript type of one number."""
    return "bigint" if script_element(row).startswith("Big") else "number"


def script_array(row: FieldType) -> str:
    """Return the typed array of a type's numbers."""
    return f"{script_element(row)}Array"


def script_row(row: FieldType) -> str:
    """Return the row of FIELD_TYPES, as prettier breaks it."""
    facts = [f"tag: {row.tag}", f"kind: '{row.kind}'", f"items: {script_array(row)}"]
    if row.kind in ("integer", "array") and (limits := row.limits) is not None:
        suffix = "n" if row.item_bytes == 8 else ""
        facts += [f"least: {limits[0]}{suffix}", f"most: {limits[1]}{suffix}"]
    line = f"  {row.name}: {{ {', '.join(facts)} }},"
    if len(line) <= LINE:
        return line
    return "\n".join([f"  {row.name}: {{", *(f"    {fact}," for fact in facts), "  },"])


def method_name(row: FieldType) -> str:
    """Return the name of the TypeScript getter: get_i32_array becomes getI32Array."""
    return "get" + "".join(map(str.capitalize, row.getter.split("_")[1:]))


def script_getter(row: FieldType) -> str:
    """Return the method that reads a field of this type."""
    comment, result, value = SCRIPT_GETTERS[row.kind]
    facts = {
        "element": script_element(row),
        "array": script_array(row),
        "primitive": script_primitive(row),
        "at": "at" if row.item_bytes == 1 else "at, true",
    }
    result = result.format(**facts)
    returns = result if result == "unknown" else f"{result} | null"
    lines = [f"  /** {comment} */"] if comment else []
    lines += [
        f"  {method_name(row)}(name: string): {returns} {{",
        f"    const at = this.locate(name, '{row.name}')",
        f"    return at < 0 ? null : {value.format(**facts)}",
        "  }",
    ]
    return "\n".join(lines)


def script_store(row: FieldType) -> str:
    """Return the case that stores a checked value in a slot."""
    order = "" if row.item_bytes == 1 else ", true"
    store = f"view.set{script_element(row)}(at, value as {script_primitive(row)}{order})"
    return f"    case '{row.name}':\n      return {store}"


def script() -> str:
    """Return js/src/types.ts."""
    return script_table() + script_getters() + script_stores()


def script_table() -> str:
    """Return the table, and what describes a row of it."""
    kinds = " | ".join(f"'{kind}'" for kind in dict.fromkeys(row.kind for row in TYPES))
    rows = "\n".join(map(script_row, TYPES))
    return f"""\
/**
 * The field types. Written by tools/strand_types.py from the table in src/strand/_types.h: change
 * that, not this file.
 */

/** What a type is, apart from its name. */
export interface TypeFacts {{
  /** Its number on the wire. */
  readonly tag: number
  readonly kind: {kinds}
  /** A typed array of the number in the slot, or of the items of a payload. */
  readonly items: ItemsConstructor<ArrayBufferView>
  /** The range of integers; bigints for 64 bits. */
  readonly least?: number | bigint
  readonly most?: number | bigint
}}

/** The constructor of a typed array over a part of a buffer. */
export interface ItemsConstructor<T> {{
  readonly BYTES_PER_ELEMENT: number
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): T
  from(values: readonly unknown[], toNumber: (value: unknown) => never): T
}}

export const FIELD_TYPES = {{
{rows}
}} as const satisfies Record<string, TypeFacts>

/** The name of a field type. */
export type FieldType = keyof typeof FIELD_TYPES

"""


def script_getters() -> str:
    """Return the base class of the cursor, which has a getter for each type."""
    getters = "\n\n".join(map(script_getter, TYPES))
    cases = "\n".join(
        f"      case '{row.name}':\n        return this.{method_name(row)}(name)" for row in TYPES
    )
    return f"""\
/** A getter for each type; `RecordCursor` finds the field and decodes payloads. */
export abstract class FieldGetters {{
  protected abstract readonly view: DataView

  /** The type of a field; RangeError for an unknown name. */
  protected abstract typeOf(name: string): FieldType

  /** Byte offset of a field of this type in the record under the cursor, -1 when it is null. */
  protected abstract locate(name: string, type: FieldType): number

  /** The string of a handle. */
  protected abstract interned(handle: number): string | null

  /** The text or JSON value whose pointer is at `at`. */
  protected abstract decoded(name: string, at: number): unknown

  /** A view of the payload whose pointer is at `at`. */
  protected abstract items<T extends ArrayBufferView>(at: number, type: ItemsConstructor<T>): T

{getters}

  /** The value of a field of any type; null when there is none. */
  get(name: string): unknown {{
    switch (this.typeOf(name)) {{
{cases}
    }}
  }}
}}

"""


def script_stores() -> str:
    """Return the function that stores a value in a slot."""
    stores = "\n".join(script_store(row) for row in TYPES if not row.heap)
    return f"""\
/** Store a checked value in a slot; heap types are stored as pointers, and not here. */
export function storeNumber(view: DataView, at: number, type: FieldType, value: unknown): void {{
  switch (type) {{
{stores}
  }}
}}
"""


def stub(text: str) -> str:
    """Replace the getters of the cursor in _native.pyi."""
    lines = []
    for row in TYPES:
        item = "float" if row.code in "fd" else "int"
        result = PYTHON_RESULTS.get(row.kind, f"memoryview[{item}] | None")
        lines.append(f"    def {row.getter}(self, name: str, /) -> {result}: ...\n")
    return replace_between(
        text, "    # getters, by tools/strand_types.py\n", "".join(lines), "    #"
    )


def spec(text: str) -> str:
    """Replace the table of types in spec/strand-wire.md."""
    lines = ["| type | tag | bytes in a v5 slot | value |\n|---|---|---|---|\n"]
    for row in TYPES:
        value = VALUES[row.kind].format(element=ELEMENTS[row.code])
        lines.append(f"| {row.name} | {row.tag} | {row.width_in(5)} | {value} |\n")
    start = "<!-- types, by tools/strand_types.py -->\n"
    return replace_between(text, start, "".join(lines), "<!--")


def readme(text: str) -> str:
    """Replace the list of types in a README."""
    names = " ".join(row.name for row in TYPES)
    found, count = re.subn(r"`i32 u32 [a-z0-9_ ]+`", f"`{names}`", text)
    assert count == 1, "the README has one list of types"
    return found


def replace_between(text: str, start: str, content: str, end: str) -> str:
    """Replace what is between the line `start` and the next line that begins with `end`."""
    before, found, rest = text.partition(start)
    assert found, f"a line {start!r}"
    return before + start + content + rest[rest.index(end) :]


FILES: dict[str, Callable[[str], str]] = {
    "packages/strand/js/src/types.ts": lambda _: script(),
    "packages/strand/src/strand/_native.pyi": stub,
    "spec/strand-wire.md": spec,
    "packages/strand/README.md": readme,
    "packages/strand/js/README.md": readme,
}


def main() -> int:
    """Write the files, or only compare them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    check = parser.parse_args().check
    outdated = []
    for name, write in FILES.items():
        path = ROOT / name
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if (wanted := write(text)) != text:
            outdated.append(name)
            if not check:
                path.write_text(wanted, encoding="utf-8")
    if outdated and check:
        print(f"run `python tools/strand_types.py`: not up to date: {', '.join(outdated)}")
    return int(bool(outdated and check))


if __name__ == "__main__":
    sys.exit(main())
