"""Short versions of everything: a few faults in each mode, a few thousand made-up requests, some rude clients."""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path

import pytest

from campaign.__main__ import UNLIMITED
from campaign.faults import faults_of
from campaign.fuzz import Fuzz
from campaign.hostile import Target, attack
from campaign.rounds import LOG, Outcome, Plan, keep, kept, told_secrets
from campaign.rounds import attack as attack_by_faults
from campaign.together import SITES
from tests.checker import check
from tests.conftest import BuildHouse, only
from tests.faults.clock import can_jump
from tests.faults.perfect_server import a_right_history
from tests.servers.shared import required

SEED = 1
MINUTES = 2.0
FAULTS = {"embedded": 16, "stack": 12}
ACKNOWLEDGED_PER_FAULT = 3
REQUESTS = 6_000
GROWTH_MIB = 128
"""Far above what it grows by, and far below what a leak of a whole request each would take."""


@pytest.mark.skipif(not can_jump() and not required(), reason="this machine has no C compiler (cc)")
@pytest.mark.timeout(400)
async def test_a_short_campaign_finds_no_broken_promise(house_name: str, tmp_path: Path) -> None:
    """A dozen faults under load, singly and in pairs: nothing lost, reused, left out or done twice."""
    with ExitStack() as ends:
        site = SITES[house_name](tmp_path, ends)
        plan = Plan(SEED, MINUTES, FAULTS[house_name], faults_per_round=FAULTS[house_name], kept=tmp_path / "kept")
        outcome = await attack_by_faults(site, plan, lambda _: None)
        names = {one.name for one in faults_of(site, random.Random(SEED))}
    assert (+outcome.violations, outcome.details) == ({}, [])
    # On a busy machine time may end it first; a campaign that got through less than half has proven little.
    in_time = outcome.seconds < MINUTES * 60
    assert outcome.faults >= (FAULTS[house_name] if in_time else FAULTS[house_name] / 2)
    assert {name for strike in outcome.strikes for name in strike.kinds} <= names
    # Each recovery is found by a post of its own: the clients have to have got through as well.
    assert outcome.acknowledged > ACKNOWLEDGED_PER_FAULT * outcome.faults
    assert outcome.events > 0
    assert outcome.searches > 0


def test_a_round_that_is_kept_can_be_judged_again(tmp_path: Path) -> None:
    """What is read back from the files is what was judged, to the last exchange: right stays right, wrong wrong."""
    server = a_right_history()
    keep(tmp_path, server.history, server.reading())
    history, reading = kept(tmp_path)
    assert history == server.history
    assert check(history, reading) == []
    lines = (tmp_path / LOG).read_text().splitlines()
    (tmp_path / LOG).write_text("\n".join(lines[:1] + lines[2:]) + "\n")
    assert {one.rule.name for one in check(*kept(tmp_path))} == {"INVENTED"}


@only("embedded", because="the web layer is the same in both, and what is beneath it is not what is fuzzed")
def test_made_up_requests_are_answered_as_described(serve: BuildHouse) -> None:
    """Documented statuses and bodies only, no failure, no growth, and nothing in the log that is a defect."""
    house = serve(**UNLIMITED)
    found = Fuzz(house.url, house.pid, SEED).run(REQUESTS, lambda _: None)
    assert (found.faults, found.examples) == ({}, [])
    assert found.requests >= REQUESTS
    assert found.highest_mib - found.early_mib < GROWTH_MIB or not found.early_mib
    assert "Traceback" not in house.log_text()


@only("embedded", because="the web layer is the same in both")
async def test_slow_greedy_and_rude_clients_do_not_keep_others_from_being_served(serve: BuildHouse) -> None:
    """While they hold on, somebody else posts and reads, and is always answered."""
    house = serve(**UNLIMITED)
    endured = await attack(Target.of(house.host, house.port, house.pid), held_s=2.0, share=0.05)
    assert {one.kind: one.bystander_failures for one in endured if one.bystander_failures} == {}
    assert all(one.bystander_requests for one in endured)
    assert "Traceback" not in house.log_text()


def test_a_token_or_a_key_that_is_written_down_is_found() -> None:
    """In whichever place, and in no other's name."""
    places = {"logs": "a line\nanother with a-token in it, and a-token again", "metrics": "chats{key=KEY-7} 1"}
    assert told_secrets(("a-token", "KEY-"), places) == [
        "tokens or keys stand in the logs 2 times",
        "tokens or keys stand in the metrics 1 times",
    ]
    assert told_secrets(("b-token",), places) == []


def test_an_outcome_counts_two_at_once_as_two() -> None:
    """A pair of faults is two faults."""
    from campaign.nemesis import Strike  # noqa: PLC0415 - of this test alone

    assert Outcome("x", 1, {}, strikes=[Strike(("a",), 0.0, 1.0), Strike(("b", "c"), 0.0, 1.0)]).faults == 3
