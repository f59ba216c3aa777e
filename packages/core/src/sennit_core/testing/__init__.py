"""What tests of any package use: a manual clock, README snippets that run, and the import graph."""

from sennit_core.testing.clock import ManualClock
from sennit_core.testing.imports import import_graph, imported_modules, module_files
from sennit_core.testing.markdown import run_markdown

__all__ = ["ManualClock", "import_graph", "imported_modules", "module_files", "run_markdown"]
