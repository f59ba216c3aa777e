"""Memory is reserved before it is used.

Layering: usage <- allocation_limit <- watchdog; budget <- arena; budget <- max_of_budget;
queue <- pool; grant_plan.

Three mechanisms enforce the memory cap. A `MemoryBudget` grants or refuses the reservations of
operators, which spill when refused. A `Watchdog` compares the memory that the kernel charges to the
process with the cap, and asks the run to stop. An `AllocationLimit` makes one large allocation
between two measurements fail with a `MemoryError`.
"""

from emsqrt.memory.allocation_limit import AllocationLimit
from emsqrt.memory.arena import Arena, Slice
from emsqrt.memory.budget import BudgetGuard, MemoryBudget
from emsqrt.memory.usage import MemoryUse, UsageReader
from emsqrt.memory.watchdog import CapLevels, Reactions, Watch, Watchdog

__all__ = [
    "AllocationLimit",
    "Arena",
    "BudgetGuard",
    "CapLevels",
    "MemoryBudget",
    "MemoryUse",
    "Reactions",
    "Slice",
    "UsageReader",
    "Watch",
    "Watchdog",
]
