"""The suites' own houses: a process that ended by itself is not started again as if nothing had been."""

from __future__ import annotations

import os
import signal

import pytest

from tests.conftest import BuildHouse
from tests.houses import HouseDidNotStart, StackHouse


def die(process: int) -> None:
    """End a process behind its house's back, and leave it to the house to notice."""
    os.kill(process, signal.SIGABRT)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)


def test_a_server_that_died_by_itself_fails_the_next_start(serve: BuildHouse) -> None:
    """Its exit code and its log are told; one that the test has killed starts."""
    house = serve()
    house.restart()
    die(house.pid)
    with pytest.raises(HouseDidNotStart, match=r"by itself, code -6:\n(.*\n)*.*serving"):
        house.restart()


def test_a_worker_that_died_by_itself_fails_the_next_start(serve: BuildHouse) -> None:
    """Of the house, too, whose server the test has killed."""
    house = serve()
    if not isinstance(house, StackHouse):
        pytest.skip("this house has no worker")
    house.restart_worker()
    die(house.worker_pid)
    with pytest.raises(HouseDidNotStart, match="code -6"):
        house.restart()
