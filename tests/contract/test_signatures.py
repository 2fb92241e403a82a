"""Every tenant-scoped method takes the application first: in the contract, the houses and the use cases."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import pytest

from chat_system import ports as contract
from chat_system.model import ApplicationId
from chat_system.system import ChatSystem
from tests.contract.houses import OpenHouse

PORTS: dict[str, type] = {
    "journal": contract.Journal,
    "store": contract.Store,
    "search": contract.SearchIndex,
    "feed": contract.Feed,
}

# What belongs to no tenant: the projections' side of the journal, what creates or finds applications, and
# what operators do to the whole house.
HOUSE_WIDE = {
    "journal": {"read", "acknowledge", "set_aside", "asides", "retry", "backlog", "wait", "ping"},
    "store": {"create_application", "recall", "resolve", "applications", "ping", "sweep", "verify", "recount"},
    "search": {"apply", "ping"},
    "feed": set[str](),
}
SYSTEM_WIDE = {"create_application", "open", "recall", "applications", "ping", "verify", "recount", "sweep"}


def methods(kind: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public methods of a class, by name."""
    yield from (one for one in inspect.getmembers(kind, inspect.isfunction) if not one[0].startswith("_"))


def takes_the_application_first(method: Callable[..., Any]) -> bool:
    """Whether the first parameter after self is the application, and can't be left out."""
    first = list(inspect.signature(method).parameters.values())[1:2]
    return [(one.name, one.default, one.kind) for one in first] == [
        ("application", inspect.Parameter.empty, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    ] and get_type_hints(method)["application"] is ApplicationId


@pytest.mark.parametrize("port", PORTS)
def test_every_tenant_scoped_method_takes_the_application_first(port: str) -> None:
    """All methods but those that are known to belong to no tenant; a new one has to be thought about."""
    named = dict(methods(PORTS[port]))
    assert set(named) >= HOUSE_WIDE[port], "the list of house-wide methods names what is gone"
    for name, method in named.items():
        assert takes_the_application_first(method) == (name not in HOUSE_WIDE[port]), f"{port}.{name}"


def test_every_tenant_scoped_use_case_takes_the_application_first() -> None:
    """The same of ChatSystem, which the web and the command line call."""
    named = dict(methods(ChatSystem))
    assert set(named) >= SYSTEM_WIDE
    for name, method in named.items():
        assert takes_the_application_first(method) == (name not in SYSTEM_WIDE), name


@pytest.mark.parametrize("port", PORTS)
async def test_a_house_has_the_very_signatures_of_its_ports(ports: OpenHouse, port: str) -> None:
    """Names, order, kinds and defaults of all parameters are the contract's."""
    for name, method in methods(PORTS[port]):
        mine = inspect.signature(getattr(getattr(ports, port), name))
        theirs = list(inspect.signature(method).parameters.values())[1:]
        assert [(one.name, one.kind, one.default) for one in mine.parameters.values()] == [
            (one.name, one.kind, one.default) for one in theirs
        ], f"{port}.{name}"


@pytest.mark.parametrize("port", PORTS)
def test_every_method_of_a_port_has_a_contract(port: str) -> None:
    """A method without a docstring would promise nothing."""
    for name, method in methods(PORTS[port]):
        assert method.__doc__, f"{port}.{name}"
