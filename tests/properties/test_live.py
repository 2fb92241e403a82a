"""Old snapshot + events = fresh snapshot, for readers that are cut off and come back at random moments.

Hypothesis makes up what the writers do and how each reader reads, hangs up and comes back; all run at once.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

import httpx
from hypothesis import given
from hypothesis import strategies as st

from tests.houses import House
from tests.properties.budget import budget
from tests.properties.live_reader import SNAPSHOT_LIMIT, Json, LiveReader, Return

EXAMPLES = 12
WRITERS = 3
BODIES = st.sampled_from(["a", "two\nlines", "\n\ndata: {}\n\n", "\r", "\u2028\u2029\x85", "🙂" * 50, "x" * 5000])
PICK = st.integers(min_value=0, max_value=1000)
STEPS = st.one_of(
    st.tuples(st.just("post"), BODIES),
    st.tuples(st.just("batch"), st.integers(1, 5)),
    st.tuples(st.just("edit"), PICK),
    st.tuples(st.just("delete"), PICK),
    st.tuples(st.just("rest"), st.integers(1, 8)),
)
SESSIONS = st.tuples(st.sampled_from(Return), st.integers(0, 8), st.integers(0, 5))
PATIENCE_S = 0.03


@dataclass
class Written:
    """What the writers were answered: the state at each revision, and each number's first revision."""

    states: dict[int, Json] = field(default_factory=dict)
    begun: dict[int, int] = field(default_factory=dict)

    def posted(self, message: Json) -> None:
        """A message was created."""
        self.states[message["revision"]] = message
        self.begun[message["number"]] = message["revision"]


async def write(http: httpx.AsyncClient, chat: str, steps: list[tuple[str, Any]], written: Written) -> None:
    """Do the steps of one writer."""
    for kind, what in steps:
        numbers = sorted(written.begun)
        if kind == "rest":
            await asyncio.sleep(what / 1000)
        elif kind == "batch":
            messages = [{"body": f"one of {what}"}] * what
            answer = await http.post(f"{chat}/messages/batch", json={"messages": messages})
            assert answer.status_code == 201, answer.text
            for message in answer.json():
                written.posted(message)
        elif kind == "post" or not numbers:
            answer = await http.post(f"{chat}/messages", json={"body": str(what), "metadata": {"n": 1}})
            assert answer.status_code == 201, answer.text
            written.posted(answer.json())
        else:
            await change(http, f"{chat}/messages/{numbers[what % len(numbers)]}", kind, written)


async def change(http: httpx.AsyncClient, path: str, kind: str, written: Written) -> None:
    """Edit or delete one message."""
    if kind == "delete":
        assert (await http.delete(path)).status_code == 204
        return
    answer = await http.patch(path, json={"body": f"edited after {len(written.states)}"})
    assert answer.status_code in (200, 409), answer.text
    if answer.status_code == 200:
        written.states[answer.json()["revision"]] = answer.json()


async def read_on(reader: LiveReader, sessions: list[tuple[Return, int, int]], done: asyncio.Event) -> None:
    """Do the sessions of one reader, again and again until the writers are done."""
    await reader.take_snapshot()
    for how, events, pause_ms in itertools.cycle(sessions):
        await reader.read(how, events=events, patience_s=PATIENCE_S)
        await asyncio.sleep(pause_ms / 1000)
        if done.is_set():
            return


def judge(reader: LiveReader, written: Written) -> None:
    """Every event is a change that was made, told under the right name, and none came twice."""
    for seen in reader.events:
        message = seen.message
        assert seen.id > seen.above, f"seen already: {seen}"
        assert message["revision"] == seen.id
        deleted = message["deleted_at"] is not None
        created = written.begun[message["number"]] == seen.id
        kind = "deleted" if deleted else "created" if created else "updated"
        assert seen.name == f"message.{kind}"
        if not deleted:
            assert message == written.states[seen.id]


async def play(url: str, steps: list[tuple[str, Any]], readers: list[list[tuple[Return, int, int]]]) -> None:
    """One example: writers and readers at once in a fresh chat, then everyone catches up."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, trust_env=False, limits=limits, timeout=30) as http:
        token = (await http.post("/applications", json={"name": "Live"})).json()["token"]
        chat = f"/applications/{token}/chats/1"
        assert (await http.post(f"/applications/{token}/chats")).status_code == 201
        written = Written()
        followers = [LiveReader(http, chat) for _ in readers]
        done = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for follower, sessions in zip(followers, readers, strict=True):
                group.create_task(read_on(follower, sessions, done))
            writers = [write(http, chat, steps[first::WRITERS], written) for first in range(WRITERS)]
            await asyncio.gather(*writers)
            done.set()
        fresh = (await http.get(f"{chat}/messages", params={"limit": SNAPSHOT_LIMIT})).json()
        latest = max((message["revision"] for message in fresh), default=0)
        for follower in followers:
            await follower.catch_up(latest)
            assert [follower.copy[number] for number in sorted(follower.copy)] == fresh
            judge(follower, written)


@budget(EXAMPLES)
@given(
    steps=st.lists(STEPS, min_size=20, max_size=60),
    readers=st.lists(st.lists(SESSIONS, min_size=1, max_size=6), min_size=1, max_size=4),
)
def test_an_old_snapshot_and_the_events_after_it_are_a_fresh_snapshot(
    house: House, steps: list[tuple[str, Any]], readers: list[list[tuple[Return, int, int]]]
) -> None:
    """Whatever is written and whenever readers hang up and come back, their copies end as the chat is."""
    asyncio.run(play(house.url, steps, readers))
