"""The JSON Schema of documents, for editors; it is stored as `schema.json` in this folder."""

from __future__ import annotations

from emsqrt.documents.config import SETTINGS
from emsqrt.documents.verbs import OTHER_KEYS, SYNONYMS, TEXT, VERBS, Json


def document_schema() -> Json:
    """Return the JSON Schema (draft 2020-12) of a document of steps."""
    steps: Json = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/step"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "EM-√ document",
        "description": "Steps from a scan to a sink, with settings, variables and named inputs.",
        "$ref": "#/$defs/document",
        "$defs": {
            "document": {
                "type": "object",
                "properties": {
                    "name": TEXT,
                    "vars": {"type": "object", "additionalProperties": {"type": _SCALAR}},
                    "config": _config(),
                    "inputs": {"type": "object", "additionalProperties": {"$ref": "#/$defs/rows"}},
                    "steps": steps,
                },
                "required": ["steps"],
                "additionalProperties": False,
            },
            "rows": {
                "description": "An input's name, one step, or steps.",
                "anyOf": [TEXT, {"$ref": "#/$defs/step"}, steps],
            },
            "step": {"anyOf": [{"$ref": f"#/$defs/{each}"} for each in ("verb", "op")]},
            "verb": {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 1,
                "properties": {word: _value(word) for word in _WORDS},
                "additionalProperties": False,
            },
            "op": {"oneOf": [_with_keys(word) for word in _WORDS]},
        },
    }


_SCALAR = ["string", "number", "boolean", "null"]
_WORDS = {**{verb: verb for verb in VERBS}, **SYNONYMS}


def _config() -> Json:
    return {
        "type": "object",
        "properties": {name: {"type": ["string", "integer", "boolean"]} for name in SETTINGS},
        "additionalProperties": False,
    }


def _keys(word: str) -> Json:
    verb, others = VERBS[_WORDS[word]], OTHER_KEYS.get(word, {})
    properties = {**verb.keys, **{other: verb.keys[name] for other, name in others.items()}}
    keys: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    required = [name for name in verb.required if name not in others.values()]
    return {**keys, "required": required} if required else keys


def _value(word: str) -> Json:
    verb = VERBS[_WORDS[word]]
    forms = [_keys(word)]
    if verb.bare is not None:
        forms.append(verb.keys[verb.bare])
    if not verb.required:
        forms.append({"type": "null"})
    return {"description": verb.summary, "anyOf": forms}


def _with_keys(word: str) -> Json:
    keys = _keys(word)
    return {
        **keys,
        "description": VERBS[_WORDS[word]].summary,
        "properties": {"op": {"const": word}, **keys["properties"]},
        "required": ["op", *keys.get("required", ())],
    }
