"""Plans by names: settings that a method does not have are left out."""

from __future__ import annotations

from dataclasses import fields

from advisor.plan import Plan
from advisor.registry.lookup import METHODS
from advisor.registry.spec import keys_of

_OWN = {field.name for field in fields(Plan)} | {"strategy"}


def made(method: str, **values: object) -> Plan:
    """A plan of a method, with those of the values that it has."""
    keys = keys_of(METHODS[method].settings)
    unknown = set(values) - _OWN - {key for other in METHODS for key in keys_of(other.settings)}
    assert not unknown, f"no plan has {unknown}"
    return Plan.of(method, **{k: v for k, v in values.items() if k in keys or k in _OWN})


def changed(plan: Plan, **changes: object) -> Plan:
    """The plan with other names, settings or fields."""
    return made(**{"framework": plan.framework, **plan.as_names(), **changes})
