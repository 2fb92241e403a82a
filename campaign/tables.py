"""The tables of docs/reliability.md, made from the recorded results: no figure in it is typed by hand.

A part of the document between `<!-- figures: NAME -->` and `<!-- end of figures -->` is replaced by what the file
NAME.json of the results says; a part without results says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PART = re.compile(r"(<!-- figures: ([\w-]+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
NOTHING = "No run is recorded.\n"

Found = Mapping[str, Any]


def renewed(document: str, results: Path) -> str:
    """The document with the figures that are recorded."""
    return PART.sub(lambda part: part[1] + "\n" + _figures(part[2], results) + "\n" + part[3], document)


def _figures(name: str, results: Path) -> str:
    path = results / f"{name}.json"
    return MAKERS[name](json.loads(path.read_text("utf-8"))) if path.exists() else NOTHING


def faults(found: Found) -> str:
    """A campaign in one mode."""
    answers: Mapping[str, int] = found["answers"]
    refused = {status: count for status, count in answers.items() if status in ("503", "no answer")}
    sites = f" on {found['sites']} sites at once" if found.get("sites", 1) > 1 else ""
    rows = [
        ("faults", f"{found['faults']:,} in {found['rounds']} rounds{sites}, {found['seconds'] / 60:.0f} minutes"),
        ("creations acknowledged", f"{found['acknowledged']:,} ({found['messages']:,} messages in the end)"),
        *((name, f"**{found[name]:,}**") for name in ("lost", "reused", "gaps", "duplicated")),
        ("other broken promises", f"**{found['other']:,}**"),
        ("refused with 503", f"{refused.get('503', 0):,}"),
        ("requests that were never answered", f"{refused.get('no answer', 0):,}"),
        ("events that live readers were told", f"{found['events']:,}"),
        ("searches compared with the oracle", f"{found['searches']:,}"),
        ("writes torn", f"{found['torn_times']:,} times, {found['torn_bytes']:,} bytes"),
        ("had to be killed 30 s after SIGTERM", f"{found['late_ends']:,}"),
    ]
    lines = [_about(found, f"seed {found['seed']}"), "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in rows]
    lines += ["", "| recovered after | times | p50 s | max s |", "| --- | ---: | ---: | ---: |"]
    for name, one in found["recovery"].items():
        lines.append(f"| {name} | {one['times']} | {one['p50_s']:.2f} | {one['max_s']:.2f} |")
    return "\n".join(lines) + "\n"


def fuzz(found: Found) -> str:
    """A fuzz."""
    statuses = ", ".join(f"{status}: {count:,}" for status, count in sorted(found["statuses"].items()))
    memory = ", ".join(f"{found[name]:.0f}" for name in ("early_mib", "highest_mib", "last_mib"))
    wrong = ", ".join(f"{what}: {count:,}" for what, count in found["faults"].items()) or "none"
    return "\n".join(
        [
            _about(found, f"seed {found['seed']}"),
            "",
            "| | |",
            "| --- | --- |",
            f"| requests | {found['requests']:,}, and {found['broken']:,} times bytes that are no request |",
            f"| time | {found['seconds'] / 60:.1f} minutes, {found['requests'] / found['seconds']:,.0f} a second |",
            f"| answers | {statuses} |",
            f"| operations and statuses reached | {found['reached']} |",
            f"| answers that were not as described | **{wrong}** |",
            f"| memory after a fifth, at most, at the end | {memory} MiB |",
            "",
        ]
    )


def hostile(found: Found) -> str:
    """Rude clients."""
    lines = [
        _about(found, "embedded"),
        "",
        "| clients | how they ended | others: requests, failures, slowest | memory |",
        "| --- | --- | --- | ---: |",
    ]
    for one in found["kinds"]:
        ends = ", ".join(f"{count:,} {end}" for end, count in sorted(one["ends"].items()))
        others = f"{one['bystander_requests']:,}, **{one['bystander_failures']}**, {one['bystander_slowest_s']:.2f} s"
        lines.append(f"| {one['clients']:,} × {one['kind']} | {ends} | {others} | {one['memory_mib']:.0f} MiB |")
    return "\n".join(lines) + "\n"


def _about(found: Found, what: str) -> str:
    machine, commit = found["machine"], (found["commit"] or "unknown")[:10]
    changed = ", with changes" if found["changed"] else ""
    servers = "".join(f", {name} {version}" for name, version in found.get("servers", {}).items())
    where = f"{machine['cores']} × {machine['cpu']}, {machine['file_system']}, Python {machine['python']}"
    return f"{found['date']}, {what}, commit {commit}{changed}; {where}{servers}."


MAKERS: Mapping[str, Callable[[Found], str]] = {
    "faults-embedded": faults,
    "faults-stack": faults,
    "fuzz": fuzz,
    "hostile": hostile,
}
