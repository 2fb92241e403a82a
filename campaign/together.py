"""Several sites of a mode, attacked at once: each in a process of its own, with servers, ports and chances of its own.

    outcome = attack_together("stack", plan, sites=2, tell=print)

Each takes its share of the faults. Of the time between two faults most is waiting, so two sites get through nearly
twice as many of them; what recovery takes is then measured on a machine that is busier by the other site.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

from campaign.rounds import Outcome, Plan, attack
from campaign.sites import EmbeddedSite, Site, StackSite
from tests.servers.process import share_ports

SITES: dict[str, type[Site]] = {"embedded": EmbeddedSite, "stack": StackSite}

END_TIMEOUT_S = 120.0
"""How long a site that is told to end may take to end its servers."""

Tell = Callable[[str], None]


def attack_alone(mode: str, plan: Plan, tell: Tell) -> Outcome:
    """Attack one site, in this process."""
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="chat-system-campaign-")))
        folder.chmod(0o755)
        return asyncio.run(attack(SITES[mode](folder, ends), plan, tell))


def attack_together(mode: str, plan: Plan, sites: int, tell: Tell) -> Outcome:
    """Attack as many sites at once, and add up what they did and found.

    Raises:
        RuntimeError: a site's process ended without having said what it found.
    """
    spawning = multiprocessing.get_context("spawn")
    started = []
    try:
        for number in range(sites):
            ours, theirs = spawning.Pipe(duplex=False)
            share = None if plan.faults is None else -(-plan.faults // sites)
            own = replace(plan, site=number + 1, faults=share)
            process = spawning.Process(target=_attack_apart, args=(mode, own, sites, theirs))
            process.start()
            theirs.close()
            started.append((process, ours))
        return added_up(_told([ours for _, ours in started], tell))
    except BaseException:
        for process, _ in started:
            process.terminate()
        raise
    finally:
        for process, _ in started:
            process.join(END_TIMEOUT_S)


def _attack_apart(mode: str, plan: Plan, sites: int, telling: Connection) -> None:
    """In a process of its own. It ends when the one that started it ends, in order if that is told to."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    share_ports(plan.site - 1, sites)
    with contextlib.suppress(KeyboardInterrupt):
        telling.send(attack_alone(mode, plan, lambda line: telling.send(f"site {plan.site}: {line}")))


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _told(sites: Sequence[Connection], tell: Tell) -> Sequence[Outcome]:
    """Pass on what the sites tell, until each has said what it found."""
    found: list[Outcome] = []
    open_ones = list(sites)
    while open_ones:
        for one in wait(open_ones):
            assert isinstance(one, Connection)
            try:
                said = one.recv()
            except EOFError:
                raise RuntimeError("a site ended without having said what it found") from None
            if isinstance(said, Outcome):
                found.append(said)
                open_ones.remove(one)
            else:
                tell(said)
    return found


def added_up(outcomes: Sequence[Outcome]) -> Outcome:
    """What several sites did and found in the same time, as one."""
    first = outcomes[0]
    total = Outcome(first.mode, first.seed, first.servers, sites=0)
    for one in outcomes:
        assert (one.mode, one.seed) == (first.mode, first.seed)
        for name in (field.name for field in fields(Outcome)):
            if name not in ("mode", "seed", "servers", "seconds"):
                setattr(total, name, getattr(total, name) + getattr(one, name))
        total.seconds = max(total.seconds, one.seconds)
    return total
