"""Fixtures of the compose suite, which runs by `make compose-test` only: it takes Docker and several minutes.

project  module    compose.yaml, up and healthy; what it logged is added to the report of a failed test.
client   function  a Client of it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Generator, Iterator

import pytest

from tests.client import Client
from tests.compose.project import Project, engine_answers, running_project

WANTED = "CHAT_TEST_COMPOSE"

_running: list[Project] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the suite out unless it is wanted."""
    if os.environ.get(WANTED) != "required":
        for item in items:
            if item.path.parent.name == "compose":
                item.add_marker(pytest.mark.skip(reason="make compose-test runs it"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the services logged to the report of a failed test."""
    report = yield
    if report.failed:
        for project in _running:
            report.sections.append(("log of the services", project.log()))
    return report


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    """Everything that compose.yaml describes, running."""
    assert engine_answers(), "there is no Docker engine with compose on this machine"
    with running_project() as running:
        _running.append(running)
        yield running
        _running.remove(running)


@pytest.fixture
async def client(project: Project) -> AsyncIterator[Client]:
    """A client of the project's API."""
    async with Client(project.url) as opened:
        yield opened
