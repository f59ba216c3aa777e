"""Build with `tools/build_backend.py` in a checkout, and with hatchling in an unpacked sdist."""

import sys
from pathlib import Path

_TOOLS = Path(__file__).resolve().parents[2] / "tools"
if (_TOOLS / "build_backend.py").is_file():
    sys.path.append(str(_TOOLS))
    from build_backend import *  # noqa: F403 - the hooks of PEP 517
else:
    from hatchling.build import *  # noqa: F403
