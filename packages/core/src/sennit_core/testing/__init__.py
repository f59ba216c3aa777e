"""What tests of any package use: a clock moved by hand, and README snippets that run."""

from sennit_core.testing.clock import ManualClock
from sennit_core.testing.markdown import run_markdown

__all__ = ["ManualClock", "run_markdown"]
