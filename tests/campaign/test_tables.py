"""The tables of docs/reliability.md are what the recorded runs say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from campaign import record, tables
from campaign.fuzz import Fuzzed
from campaign.hostile import Endured
from campaign.nemesis import PAIR, Strike
from campaign.rounds import Outcome
from tests.tidy.tree import text_of

EMPTY = "before\n<!-- figures: {name} -->\nformer figures\n<!-- end of figures -->\nafter\n"


def recorded(name: str, folder: Path) -> None:
    """A run, written down as a command would."""
    if name.startswith("faults"):
        outcome = Outcome("stack", 5, {"Redis": "7"}, acknowledged=1234)
        outcome.strikes += [Strike(("API: killed",), 1.0, 0.5), Strike(("a: cut", "b: cut"), 2.0, 1.5)]
        outcome.violations.update({"LOST": 2, "VANISHED": 1, "REUSED": 4, "NUMBERS": 5, "TWICE": 6, "SEARCH": 7})
        record.write(folder / f"{name}.json", record.of_faults(outcome))
    elif name == "fuzz":
        found = Fuzzed(5, requests=1000, seconds=2.0, reached={"readChat 200"})
        found.blame("failed", b"GET /", None)
        record.write(folder / f"{name}.json", record.of_fuzz(found))
    else:
        record.write(folder / f"{name}.json", record.of_hostile([Endured("rude", 3, bystander_failures=9)]))


@pytest.mark.parametrize("name", tables.MAKERS)
def test_a_recorded_run_becomes_a_table(tmp_path: Path, name: str) -> None:
    """Between the marks stands what was recorded, failures too; what is around them stays."""
    recorded(name, tmp_path)
    made = tables.renewed(EMPTY.format(name=name), tmp_path)
    assert made.startswith(f"before\n<!-- figures: {name} -->\n")
    assert made.endswith("\n<!-- end of figures -->\nafter\n")
    assert "former" not in made
    wanted = {
        "fuzz": ["| requests | 1,000", "**failed: 1**"],
        "hostile": ["3 × rude", "**9**"],
    }.get(name, ["lost | **3**", "reused | **4**", "gaps | **5**", "duplicated | **6**", "promises | **7**", PAIR])
    assert [one for one in wanted if one not in made] == []


def test_without_a_run_the_document_says_so(tmp_path: Path) -> None:
    """No figure is left of a run that is not recorded."""
    made = tables.renewed(EMPTY.format(name="fuzz"), tmp_path)
    assert tables.NOTHING in made
    assert "former" not in made


def test_the_document_holds_the_figures_of_the_recorded_runs() -> None:
    """To renew it: python -m campaign report."""
    document = text_of("docs/reliability.md")
    results = Path(tables.__file__).parent / "results"
    assert tables.renewed(document, results) == document
    for path in results.glob("*.json"):
        found = json.loads(path.read_text())
        assert "token" not in found
        assert str(found["date"]) in document
