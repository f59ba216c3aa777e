"""Build with `tools/build_backend.py` in a checkout, and with hatchling in an unpacked sdist."""

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_TOOLS = _HERE.parent.parent / "tools"
# An sdist has PKG-INFO. What lies two folders above it may be anybody's, such as `/tmp/tools`.
if not (_HERE / "PKG-INFO").exists() and (_TOOLS / "build_backend.py").is_file():
    sys.path.append(str(_TOOLS))
    from build_backend import *  # noqa: F403 - the hooks of PEP 517
else:
    from hatchling.build import *  # noqa: F403
