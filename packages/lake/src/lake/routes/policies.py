"""GET, PUT and DELETE /api/datasets/{id}/policies: who may read and change a dataset, and how much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Request
from pydantic import Field

from lake.access.rules import ColumnRule, Policy, PolicyRule, written_elsewhere
from lake.routes.documents import Document
from lake.routes.requester import requester_of
from sennit_core.roles import needs

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["router"]

_NAME_MAX = 256
_COLUMNS_MAX = 1000


class ColumnRuleDocument(Document):
    """A column that is masked, or hidden without a mask."""

    name: Annotated[str, Field(max_length=_NAME_MAX)]
    mask: str | None = None


class PolicyRuleDocument(Document):
    """A rule of a policy (`lake.access.rules.PolicyRule`)."""

    principal: Annotated[str, Field(max_length=_NAME_MAX)]
    read: bool = True
    write: bool = False
    rows: str | None = None
    columns: Annotated[
        list[ColumnRuleDocument], Field(default_factory=list, max_length=_COLUMNS_MAX)
    ]

    def rule(self) -> PolicyRule:
        """Return the rule."""
        columns = tuple(ColumnRule(column.name, column.mask) for column in self.columns)
        return PolicyRule(self.principal, self.read, self.write, self.rows, columns)


class PolicyDocument(Document):
    """Body of PUT /api/datasets/{dataset}/policies."""

    rules: list[PolicyRuleDocument]


def router(lake: Lake) -> APIRouter:
    """Return the routes of policies; a dataset's owner and admins may use them."""
    routes = APIRouter(prefix="/api/datasets", tags=["policies"])

    @routes.get("/{dataset}/policies", openapi_extra=needs("reader"))
    def get_policy(dataset: str, request: Request) -> dict[str, Any]:
        """The rules of a dataset's policy; null if every reader may read it."""
        info = lake.policies.check_manage(dataset, requester_of(request))
        return _shown(lake.policies.get(info.id))

    @routes.put("/{dataset}/policies", openapi_extra=needs("writer"))
    def put_policy(
        dataset: str, policy: Annotated[PolicyDocument, Body()], request: Request
    ) -> dict[str, Any]:
        """Replace the rules of a dataset's policy; they apply to statements that start afterwards."""
        requester = requester_of(request)
        info = lake.policies.check_manage(dataset, requester)
        rules = [rule.rule() for rule in policy.rules]
        return _shown(lake.set_policy(info.id, rules, author=requester.name))

    @routes.delete("/{dataset}/policies", openapi_extra=needs("writer"))
    def delete_policy(dataset: str, request: Request) -> dict[str, Any]:
        """Remove a dataset's policy: every reader may read it, and every writer change it."""
        info = lake.policies.check_manage(dataset, requester_of(request))
        if info.node is not None and info.head is None:
            raise written_elsewhere(info.name, info.node)  # its writer says what is seen of it
        return {"deleted": lake.policies.remove(info.id)}

    return routes


def _shown(policy: Policy | None) -> dict[str, Any]:
    if policy is None:
        return {"rules": None}
    return policy.to_json() | {"rules": [rule.to_json() for rule in policy.rules]}
