"""emsqrt.te: tree evaluation scheduling; who may use how much memory when, told before the run.

Layering: formulas <- blocks (one operator's runs and merges) <- schedule <- frontier (who is live
when), grants (sharing W) <- planning; verify replays what planning made, report tells it.

The tree is the plan's, its operators cut into runs and merges of bounded fan-in; it is evaluated
depth first, so the frontier is known. Sqrt-shaped external memory, not Cook-Mertz: see `formulas`.
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
