"""The part of a chat that a window has in memory: messages in a row without a gap, whatever comes in which order."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import only
from tests.console.conftest import OpenWindow
from tests.console.windows import Window
from tests.houses import House

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    only("embedded", because="the page keeps what it is given, whoever gave it"),
]

SETUP = """
  const { History, KEPT_MAX, PAGE } = await import(new URL("history.js", location.href));
  const END = 2000;
  const message = (number, revision = number) => ({ number, revision });
  const row = (first, last) => Array.from({ length: last - first + 1 }, (_, index) => message(first + index));
  const pageOf = ({ after, before, order, limit }) => {
    if (order) return row(END - limit + 1, END).reverse();
    if (before) return row(Math.max(1, before - limit), before - 1);
    return row(after + 1, Math.min(END, after + limit));
  };
  let held = null;
  const history = new History((query) => {
    const page = pageOf(query);
    return held ? new Promise((resolve) => held.push({ query, answer: () => resolve(page) })) : Promise.resolve(page);
  });
  const settled = () => new Promise((resolve) => setTimeout(resolve));
  const state = () => ({
    numbers: history.messages.map(({ number }) => number),
    wrong: row(1, END + 10).flatMap(({ number }) => {
      const found = history.at(number);
      return found && found.number !== number ? [[number, found.number]] : [];
    }),
  });
"""


async def evaluated(window: Window, script: str) -> Any:
    """What a script answers that has a chat of 2000 messages and holds back the pages that it likes."""
    return await window.page.evaluate(f"async () => {{ {SETUP} {script} }}")


def row_is_whole(state: dict[str, Any]) -> None:
    """Consecutive numbers, and each number finds the message that bears it."""
    numbers = state["numbers"]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert state["wrong"] == []


@pytest.mark.parametrize("order", ["back first", "on first"])
async def test_two_pages_under_way_at_once_leave_no_gap(house: House, open_window: OpenWindow, order: str) -> None:
    """Each trims the end that the other would adjoin: the later one is dropped, and loaded when it is wanted again."""
    window = await open_window(house)
    states = await evaluated(
        window,
        f"""
        await history.openAround(1000);
        while (history.messages.length < KEPT_MAX) await history.extendOn();
        held = [];
        const under_way = [history.extendBack(), history.extendOn()];
        const [back, on] = held;
        for (const one of {"[back, on]" if order == "back first" else "[on, back]"}) {{
          one.answer();
          await settled();
        }}
        await Promise.all(under_way);
        const states = [state()];
        held = null;
        await history.extendOn();
        await history.extendBack();
        return [...states, state()];
        """,
    )
    for state in states:
        row_is_whole(state)
    assert len(states[0]["numbers"]) == 400


async def test_a_page_under_way_while_new_messages_make_the_row_shorter_leaves_no_gap(
    house: House, open_window: OpenWindow
) -> None:
    """Whoever watches the end while older messages are loaded: what adjoins no more is not taken."""
    window = await open_window(house)
    state = await evaluated(
        window,
        """
        await history.openEnd();
        while (history.messages.length < KEPT_MAX) await history.extendBack();
        held = [];
        const back = history.extendBack();
        for (const number of [1, 2, 3]) history.put(message(END + number), true);
        held[0].answer();
        await back;
        return state();
        """,
    )
    row_is_whole(state)
    assert state["numbers"][-1] == 2003


async def test_a_change_between_the_first_two_pages_is_not_lost(house: House, open_window: OpenWindow) -> None:
    """A jump reads the page and the latest number: the page waits for the number, and the change comes meanwhile."""
    window = await open_window(house)
    revision = await evaluated(
        window,
        """
        held = [];
        const opened = history.openAround(1000);
        const [page, latest] = held;
        page.answer();
        await settled();
        history.put(message(1000, 5000), false);
        latest.answer();
        await opened;
        return history.at(1000).revision;
        """,
    )
    assert revision == 5000
