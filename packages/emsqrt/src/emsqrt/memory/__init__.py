"""Memory is asked for before it is taken.  usage <- fence <- watchdog;  budget <- arena; sharing.

Three lines of defence hold one cap. A `MemoryBudget` answers operators that ask first and may spill
when refused. A `Watchdog` compares what the kernel charges the process with the cap, and asks the
work to stop. A `Fence` makes one large allocation between two looks fail as a `MemoryError`.
"""

from emsqrt.memory.arena import Arena, Slice
from emsqrt.memory.budget import BudgetGuard, MemoryBudget
from emsqrt.memory.fence import Fence
from emsqrt.memory.usage import MemoryUse, UsageReader
from emsqrt.memory.watchdog import CapLevels, Reactions, Watch, Watchdog

__all__ = [
    "Arena",
    "BudgetGuard",
    "CapLevels",
    "Fence",
    "MemoryBudget",
    "MemoryUse",
    "Reactions",
    "Slice",
    "UsageReader",
    "Watch",
    "Watchdog",
]
