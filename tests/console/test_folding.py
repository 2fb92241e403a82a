"""The console's folding is Python's, and its marks cover exactly what matched."""

from __future__ import annotations

import random
from typing import Any

import pytest

from chat_system.web.console import folding_table
from tests.conftest import only
from tests.console.conftest import OpenWindow
from tests.console.windows import Window
from tests.houses import House

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    only("embedded", because="the page folds alike on every house"),
]

CASES = [
    # body, query, what is marked
    ("Die Straße", "STRASSE", ["Straße"]),
    ("Maßstab", "s", ["ßs"]),
    ("ßß", "ssss", ["ßß"]),
    ("aßb", "sb", ["ßb"]),
    ("ﬁre ﬀ ﬃ", "f", ["ﬁ", "ﬀ", "ﬃ"]),
    ("İİ", "i", ["İİ"]),
    ("ΟΔΥΣΣΕΥΣ", "σσευς", ["ΣΣΕΥΣ"]),
    ("Ὀδυσσεύς", "ΣΣ", ["σσ"]),
    ("ᾳ ΑΙ", "αι", ["ᾳ", "ΑΙ"]),
    ("𐐀𐐨 DESERET", "𐐨", ["𐐀𐐨"]),
    ("ꭰ Ꭰ", "Ꭰ", ["ꭰ", "Ꭰ"]),
    ("👍🏽👍", "👍", ["👍", "👍"]),
    ("aaa", "aa", ["aa"]),
    ("aaaa", "aa", ["aaaa"]),
    ("100 % _ * ?", "% _", ["% _"]),
    ("no match", "x", []),
]

FOLDED_BELOW = 0x20000
"""No character from here on folds, as tests/api/test_console.py finds."""

MARKED = """async ([body, query]) => {
  const { loadFolding, matches } = await import(new URL("folding.js", location.href));
  await loadFolding();
  return matches(body, query).map(([start, end]) => body.slice(start, end));
}"""
AGREES = """async (cases) => {
  const { fold, loadFolding } = await import(new URL("folding.js", location.href));
  await loadFolding();
  return cases.map(([text]) => fold(text));
}"""


async def evaluated(window: Window, script: str, given: Any) -> Any:
    """What a script of the page's own modules answers."""
    return await window.page.evaluate(script, given)


async def test_matches_are_marked_whole(house: House, open_window: OpenWindow) -> None:
    """A match that begins or ends inside what a character folds to takes the character; neighbours are joined."""
    window = await open_window(house)
    for body, query, marks in CASES:
        assert (query.casefold() in body.casefold()) == bool(marks), "the case itself is wrong"
        assert await evaluated(window, MARKED, [body, query]) == marks, (body, query)


async def test_every_character_folds_as_in_python(house: House, open_window: OpenWindow) -> None:
    """All that has letter case, and far beyond; but the surrogates, which no message holds."""
    texts = [
        "".join(chr(code) for code in range(start, min(start + 4096, FOLDED_BELOW)) if not 0xD800 <= code < 0xE000)
        for start in range(0, FOLDED_BELOW, 4096)
    ]
    window = await open_window(house)
    folded = await evaluated(window, AGREES, [[text] for text in texts])
    assert folded == [text.casefold() for text in texts]


async def test_a_text_is_marked_where_and_only_where_it_matches(house: House, open_window: OpenWindow) -> None:
    """Random texts of letters that fold in unusual ways: marks exist exactly if Python finds the query."""
    letters = "aAsSßẞfﬁﬀﬃiıİI\u0307σςΣkK\u212aǰj\u030cᾳα"
    source = random.Random(5)
    pairs = [
        (
            "".join(source.choices(letters, k=source.randint(0, 12))),
            "".join(source.choices(letters, k=source.randint(1, 3))),
        )
        for _ in range(2000)
    ]
    window = await open_window(house)
    script = (
        f"async (pairs) => {{ const all = []; for (const pair of pairs) all.push(await ({MARKED})(pair)); return all }}"
    )
    found = await evaluated(window, script.replace("await loadFolding();", ""), [list(pair) for pair in pairs])
    assert folding_table()
    matched = 0
    for (body, query), marks in zip(pairs, found, strict=True):
        assert bool(marks) == (query.casefold() in body.casefold()), (body, query)
        assert all(query.casefold() in mark.casefold() for mark in marks), (body, query, marks)
        matched += bool(marks)
    assert 200 < matched < 1800
