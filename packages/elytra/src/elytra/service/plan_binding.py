"""From a submitted plan to the work of a job: the sources pinned and leased, the plan checked and split."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elytra.backends import ENGINES, FUNCTION_ENGINE, NODE_ENGINE
from elytra.backends.peers import PeersBackend
from elytra.backends.remote.backend import RemoteBackend
from elytra.backends.remote.plans import why_not_remote
from elytra.functions.javascript import is_javascript
from elytra.service.function_rules import FunctionRules
from elytra.service.javascript_rules import JavascriptRules, check_javascript_cut
from elytra.service.job_options import JobOptions
from elytra.service.network_inputs import NetworkInputs
from elytra.service.plan_inputs import PlanInputs
from elytra.service.work import PlanWork
from elytra.splitter import Cut, Whole, bind_schemas, datasets_of, rebase, split
from emsqrt.plan import Aggregate, DatasetRef, Plan, scans_of, walk
from sennit_core.errors import Denied, Unsupported, UsageError

if TYPE_CHECKING:
    from elytra.service.sealed_results import SealedResults
    from lake import Lake
    from lake.statements.limits import Requester

__all__ = ["BoundPlan", "PlanBinder", "PlanRequest"]

_RAY = "ray"


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What a job runs.

    Args:
        plan: The plan, over datasets.
        engine: The backend; "auto" for the one that moves fewer bytes.
        requester: The user, whose rights count.
        mem_cap_bytes: Memory cap of each execution; None uses the pool's cap.
        options: How it runs.
        allow_partial: Whether shards may be left out that no node has which can be reached.
        is_resumed: Whether the node continues the job after a restart: it may not have found the other
            nodes of its network yet, and leaves out nothing that the job has not left out before.
    """

    plan: Plan
    engine: str
    requester: Requester
    mem_cap_bytes: int | None = None
    options: JobOptions = field(default_factory=JobOptions)
    allow_partial: bool = False
    is_resumed: bool = False


@dataclass(frozen=True, slots=True)
class BoundPlan:
    """A plan over pinned sources.

    Args:
        plan: The plan; its scans name snapshots.
        work: The job's tasks.
        is_resumable: Whether the same sources can be opened again after a restart: snapshots can,
            while queries may be others by then, and keys are in memory. So can shards that were left out.
    """

    plan: Plan
    work: PlanWork
    is_resumable: bool


class PlanBinder:
    """Binds plans of one node.

    Args:
        lake: Datasets.
        sealed: Keys of encrypted results.
        folder: Parent of the jobs' folders.
        whole_bytes: Input below this size is processed in one task.
        engines: Those of which the node has a backend.
        functions: Whether plans may have Python functions.
        javascript: Whether plans may have JavaScript functions.
    """

    def __init__(  # noqa: PLR0913 - its parts
        self,
        lake: Lake,
        sealed: SealedResults,
        folder: Path,
        whole_bytes: int,
        engines: frozenset[str],
        functions: FunctionRules,
        javascript: JavascriptRules,
    ) -> None:
        self._lake = lake
        self._sealed = sealed
        self._folder = folder
        self._whole_bytes = whole_bytes
        self._engines = engines
        self.functions = functions
        self.javascript = javascript

    def bind(self, request: PlanRequest, job_id: str, held: ExitStack) -> BoundPlan:
        """Pin what the plan reads, which `held` leases, and validate the plan against its columns.

        Raises:
            SennitError: The plan is not valid, or names something unknown.
            Denied: It reads files by paths, it has Python functions that may not run, or a dataset is
                encrypted and the lake has no key.
            Unsupported: The engine cannot read one of the sources.
            Unavailable: No node that can be reached has a shard.
        """
        has_functions = self.functions.check(request.plan, request.engine, request.requester)
        has_javascript = self._has_javascript(request)
        inputs, bound = self._open(request.plan, request.requester, held)
        network = NetworkInputs(self._lake, inputs)
        engine = self._engine(request, bound, network, has_functions=has_functions)
        if not request.is_resumed:
            network.check_available(allow_partial=request.allow_partial)
        engine, cut = self._cut(bound, engine, inputs)
        if engine in (RemoteBackend.name, FUNCTION_ENGINE):
            network.fetch()  # workers get shards from this node
        work = PlanWork(
            job_id,
            cut,
            inputs.shards,
            inputs.names,
            self._folder / job_id,
            request.mem_cap_bytes,
            request.requester.name,
            inputs.queries,
            inputs.memory,
            self._sealed.create(job_id) if inputs.encrypted else None,
            engine,
            network.missing_report,
            request.options,
        )
        if has_functions:
            self.functions.record(bound, job_id, request.requester)
        if has_javascript:
            self.javascript.record(bound, job_id, request.requester)
        # Tasks are numbered by shard, so a job that continues must have the shards that it had.
        is_resumable = not inputs.needs_whole and not network.missing
        return BoundPlan(bound, work, is_resumable)

    def explain(self, request: PlanRequest) -> dict[str, Any]:
        """Return where the tasks of a plan would run now; see `JobService.explain`."""
        has_functions = self.functions.check(request.plan, request.engine, request.requester)
        self._has_javascript(request)
        with ExitStack() as held:
            inputs, bound = self._open(request.plan, request.requester, held)
            network = NetworkInputs(self._lake, inputs)
            engine = self._engine(request, bound, network, has_functions=has_functions)
            return network.explained(*self._cut(bound, engine, inputs))

    def check_engine(self, engine: str) -> None:
        """Refuse an engine that does not exist, or that this node does not have."""
        if engine not in ENGINES:
            raise UsageError(f'there is no engine "{engine}"', hint=f"one of {', '.join(ENGINES)}")
        if engine != "auto" and engine not in self._engines:
            raise Unsupported(f'this node has no backend for engine "{engine}"', hint='use "auto"')
        jobs = self._lake.remote.jobs
        if engine == PeersBackend.name and (jobs is None or not jobs.is_joined):
            raise Unsupported(
                'engine "peers" needs a network, and this node is in none',
                hint="`platform net invite` founds one, net join joins",
            )

    def _has_javascript(self, request: PlanRequest) -> bool:
        sample_percent = request.options.sample_percent
        return self.javascript.check(
            request.plan, request.engine, sample_percent, request.requester
        )

    def _engine(
        self, request: PlanRequest, bound: Plan, network: NetworkInputs, *, has_functions: bool
    ) -> str:
        """Return the engine of a job, which can read all of its sources."""
        if has_functions and request.engine != _RAY:
            return NODE_ENGINE  # "auto" sends them nowhere
        engine = network.choose(request.engine, bound)
        if engine != NODE_ENGINE and network.inputs.needs_whole:
            raise Unsupported(
                f'engine "{engine}" cannot read views, encrypted datasets or what a policy shows',
                hint=f'use "{NODE_ENGINE}"',
            )
        return engine

    def _open(self, plan: Plan, requester: Requester, held: ExitStack) -> tuple[PlanInputs, Plan]:
        """Return what a plan reads, and the plan over it."""
        if any(not isinstance(scan.source, DatasetRef) for scan in scans_of(plan)):
            raise Denied(
                "reading files of the node by their paths",
                hint="upload them, then name the dataset",
            )
        inputs = PlanInputs()
        for asked in datasets_of(plan):
            source = self._lake.plan_sources.open(asked, requester)
            held.enter_context(source.held)
            inputs.add(asked, source, verify_always=self._lake.verify_always)
        bound = rebase(plan, inputs.pinned.__getitem__)
        inputs.leave_out_shards(bound)
        return inputs, bound

    def _cut(self, bound: Plan, engine: str, inputs: PlanInputs) -> tuple[str, Cut]:
        """Split a bound plan; return the engine that runs it, and its parts."""
        schema_of = inputs.schemas.__getitem__
        # The name of Ray's backend: to import it would load Ray.
        rules = replace(inputs.rules, shuffles=engine == _RAY)
        if engine == RemoteBackend.name:
            # By shards also when it is small: a worker gets one shard at a time.
            cut = split(bound, schema_of, rules=rules)
            if any(map(is_javascript, walk(bound))):
                check_javascript_cut(bind_schemas(bound, schema_of), cut)
                return FUNCTION_ENGINE, cut
            if why_not_remote(cut) is None and not _needs_file_of_no_rows(cut, inputs):
                return engine, cut
            engine = NODE_ENGINE
        # Each shard at its holder, however small: one task needs a node that has all of them.
        is_small = engine != PeersBackend.name and inputs.size_bytes < self._whole_bytes
        whole = is_small or inputs.needs_whole or (engine == _RAY and _has_groups(bound))
        cut = split(bound, schema_of, rules=rules, whole=whole)
        if engine == PeersBackend.name and _needs_file_of_no_rows(cut, inputs):
            return NODE_ENGINE, cut
        return engine, cut


def _has_groups(plan: Plan) -> bool:
    """Whether a plan groups rows: Ray's workers exchange the groups of all shards, which a merge would do alone."""
    return any(isinstance(node, Aggregate) and node.keys for node in walk(plan))


def _needs_file_of_no_rows(cut: Cut, inputs: PlanInputs) -> bool:
    """Whether a task reads a dataset without shards: a file of this node, which no other one has."""
    if isinstance(cut, Whole):
        return not all(inputs.shards.values())
    return any(not inputs.shards[ref] for part in cut.parts for ref in part.others)
