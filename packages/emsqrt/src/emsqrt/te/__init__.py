"""emsqrt.te: tree evaluation scheduling, which decides before a run how much memory operators get.

Layering: formulas <- blocks (one operator's runs and merges) <- schedule <- frontier (which
operators are live at the same time), grants (sharing W) <- planning; verify replays a schedule to
check it, report prints it.

The tree is the plan's, with each operator cut into runs and merges of bounded fan-in. It is
evaluated depth first, so the frontier is known. This is sqrt-shaped external memory, not
Cook-Mertz: see `formulas`.
"""

from emsqrt.te.blocks import Blocks, Grants, Level
from emsqrt.te.planning import TeOptions, plan_te
from emsqrt.te.report import Explanation, explain_plan
from emsqrt.te.schedule import Hold, Step, TeSchedule
from emsqrt.te.verify import verify

__all__ = [
    "Blocks",
    "Explanation",
    "Grants",
    "Hold",
    "Level",
    "Step",
    "TeOptions",
    "TeSchedule",
    "explain_plan",
    "plan_te",
    "verify",
]
