"""Several sites at once: each is attacked, what all of them found is added up, and none is missed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from campaign.nemesis import Strike
from campaign.rounds import Outcome, Plan
from campaign.together import added_up, attack_together
from tests.faults.clock import can_jump
from tests.servers.process import free_port, share_ports
from tests.servers.shared import required

SEED = 1
MINUTES = 2.0
FAULTS = 6
SITES = 2
PORTS = 50


@pytest.mark.skipif(not can_jump() and not required(), reason="this machine has no C compiler (cc)")
@pytest.mark.timeout(300)
def test_sites_that_are_attacked_at_once_each_do_their_share(tmp_path: Path) -> None:
    """Half of the faults each, on different choices, and what they tell says who told it."""
    told: list[str] = []
    outcome = attack_together("embedded", Plan(SEED, MINUTES, FAULTS, kept=tmp_path), SITES, told.append)
    assert (+outcome.violations, outcome.details) == ({}, [])
    assert (outcome.sites, outcome.rounds) == (SITES, SITES)
    assert FAULTS <= outcome.faults <= FAULTS + SITES
    assert {line.partition(":")[0] for line in told} == {"site 1", "site 2"}
    diaries = [(tmp_path / f"embedded-{SEED}-{site}.log").read_text() for site in (1, 2)]
    chosen = [[line.split(": ", 1)[1] for line in diary.splitlines() if "recovered" not in line] for diary in diaries]
    assert chosen[0] != chosen[1]


def test_a_site_that_can_not_say_what_it_found_is_an_error(tmp_path: Path) -> None:
    """It might have been the one that would have found something."""
    with pytest.raises(RuntimeError, match="without having said"):
        attack_together("no such mode", Plan(SEED, MINUTES, FAULTS, kept=tmp_path), SITES, lambda _: None)


def test_what_several_sites_found_is_added_up() -> None:
    """Nothing that one of them found is lost among the others; their time is that of the longest."""
    one = Outcome("x", 1, {"Redis": "7"}, seconds=2.0, rounds=1, strikes=[Strike(("a",), 0.0, 1.0)], acknowledged=3)
    one.violations = Counter({"LOST": 1})
    one.details = ["first"]
    other = Outcome("x", 1, {"Redis": "7"}, seconds=3.0, rounds=2, strikes=[Strike(("b", "c"), 0.0, 1.0)], late_ends=1)
    other.violations = Counter({"LOST": 1, "TWICE": 1})
    other.details = ["second"]
    total = added_up([one, other])
    assert (total.sites, total.seconds, total.rounds, total.faults) == (2, 3.0, 3, 3)
    assert (total.acknowledged, total.late_ends, total.servers) == (3, 1, {"Redis": "7"})
    assert total.violations == {"LOST": 2, "TWICE": 1}
    assert total.details == ["first", "second"]


def test_processes_that_share_ports_are_never_given_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port of the one that is not listened on at the moment can not be taken by the other."""
    given = []
    for part in (0, 1):
        monkeypatch.setattr("tests.servers.process._share", (0, 1))
        share_ports(part, 2)
        given.append({free_port() for _ in range(PORTS)})
    assert given[0] & given[1] == set()
    assert {port % 2 for port in given[0]} != {port % 2 for port in given[1]}
