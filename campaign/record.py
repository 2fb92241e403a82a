"""What a run found, as JSON: written by the commands, read by the report."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from bench.history import commit, machine
from campaign.fuzz import Fuzzed
from campaign.hostile import Endured
from campaign.nemesis import PAIR
from campaign.rounds import Outcome

MEANINGS = {"lost": ("LOST", "VANISHED"), "reused": ("REUSED",), "gaps": ("NUMBERS",), "duplicated": ("TWICE",)}
"""The four figures that are promised to be zero, and the checker's rules that they count."""


def write(path: Path, found: Mapping[str, Any]) -> None:
    """Keep what was found, with when, of which commit and on what machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"date": datetime.now(UTC).strftime("%Y-%m-%d"), **commit(), "machine": machine(path.parent)}
    path.write_bytes(msgspec.json.format(msgspec.json.encode({**about, **found})) + b"\n")


def of_faults(outcome: Outcome) -> dict[str, Any]:
    """The figures of a campaign in one mode."""
    found: dict[str, Any] = {one.name: getattr(outcome, one.name) for one in fields(outcome) if one.name != "strikes"}
    counted = {name: sum(outcome.violations[rule] for rule in rules) for name, rules in MEANINGS.items()}
    known = {rule for rules in MEANINGS.values() for rule in rules}
    other = sum(count for rule, count in outcome.violations.items() if rule not in known)
    times: dict[str, list[float]] = defaultdict(list)
    for strike in outcome.strikes:
        times[strike.kinds[0] if len(strike.kinds) == 1 else PAIR].append(strike.recovered_s)
    return found | {
        "faults": outcome.faults,
        **counted,
        "other": other,
        "recovery": {
            name: {"times": len(taken), "p50_s": round(statistics.median(taken), 3), "max_s": round(max(taken), 3)}
            for name, taken in sorted(times.items())
        },
    }


def of_fuzz(found: Fuzzed) -> dict[str, Any]:
    """The figures of a fuzz."""
    return {one.name: getattr(found, one.name) for one in fields(found) if one.name != "reached"} | {
        "reached": len(found.reached)
    }


def of_hostile(found: Sequence[Endured]) -> dict[str, Any]:
    """The figures of rude clients."""
    return {"kinds": [{one.name: getattr(kind, one.name) for one in fields(kind)} for kind in found]}
