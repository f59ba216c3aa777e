"""emsqrt.documents: plans in YAML or JSON files, with a source position in every error.

Layering: errors <- tree <- yaml_text, variables, config, verbs <- steps <- reading; schema (for
editors) <- verbs. YAML needs the extra `yaml`; nothing else here needs a third-party package.
"""

from emsqrt.documents.errors import BadDocument
from emsqrt.documents.reading import Document, document_from, read_document, steps_to_plan
from emsqrt.documents.schema import document_schema

__all__ = [
    "BadDocument",
    "Document",
    "document_from",
    "document_schema",
    "read_document",
    "steps_to_plan",
]
