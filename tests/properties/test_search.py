"""Search finds exactly what Python's casefold finds: in one chat, in a whole application, page by page.

Hypothesis makes up bodies and queries of the nastiest kind, edits and deletes some, and asks at once (the
index may lag, the answer may not stay wrong). It does so in fresh applications of a few messages, and in one
where the nasty ones lie deep below thousands of others: what is far back may be searched in another way.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.houses import House
from tests.properties.budget import budget
from tests.properties.nasty_text import ANYTHING, BODIES, PIECES, TANGLED, matches
from tests.properties.settling import eventually_equal

Json = dict[str, Any]

CHATS = 2
DEEP_MESSAGES = 300
FILLER = "\u2014"
FILLERS = 2100
BATCH_MESSAGES = 500
DEEP_SEED = 20261122

TEXTS = st.one_of(BODIES, BODIES, TANGLED, ANYTHING)
PICK = st.integers(min_value=0, max_value=1000)
CUTS = st.tuples(PICK, PICK, PICK, st.sampled_from([str, str.upper, str.lower, str.casefold, str.swapcase]))
CHANGES = st.lists(st.tuples(PICK, st.none() | TEXTS), max_size=6)


@dataclass
class Corpus:
    """One application: what its messages say by chat and number; None when deleted."""

    http: httpx.Client
    token: str
    bodies: dict[tuple[int, int], str | None] = field(default_factory=dict)

    def post(self, chat: int, bodies: list[str]) -> None:
        """Post messages to a chat in one batch."""
        if bodies:
            path = f"/applications/{self.token}/chats/{chat}/messages/batch"
            answer = self.http.post(path, json={"messages": [{"body": body} for body in bodies]})
            assert answer.status_code == 201, answer.text
            self.bodies |= {(chat, one["number"]): body for one, body in zip(answer.json(), bodies, strict=True)}

    def change(self, pick: int, body: str | None) -> None:
        """Edit some message, or delete it."""
        chat, number = list(self.bodies)[pick % len(self.bodies)]
        path = f"/applications/{self.token}/chats/{chat}/messages/{number}"
        if body is None:
            assert self.http.delete(path).status_code == 204
        elif self.bodies[chat, number] is None:
            return
        else:
            assert self.http.patch(path, json={"body": body}).status_code == 200
        self.bodies[chat, number] = body

    def wanted(self, query: str) -> set[tuple[int, int]]:
        """What the oracle finds, as chat and number."""
        return {where for where, body in self.bodies.items() if body is not None and matches(query, body)}

    def in_chat(self, chat: int, query: str, limit: int) -> list[tuple[int, str]]:
        """The numbers that a search in one chat finds, and what they say, over all pages, by following Link."""
        found = self._pages(f"/applications/{self.token}/chats/{chat}/messages/search", query, limit)
        return [(item["number"], item["body"]) for item in found]

    def in_chat_by_before(self, chat: int, query: str, limit: int) -> list[int]:
        """The same, by asking for what is before the last number of each page."""
        path = f"/applications/{self.token}/chats/{chat}/messages/search"
        found: list[int] = []
        while True:
            params: dict[str, str | int] = {"q": query, "limit": limit}
            page = get(self.http, path, params | ({"before": found[-1]} if found else {})).json()
            found += [item["number"] for item in page]
            if len(page) < limit:
                return found

    def in_application(self, query: str, limit: int) -> list[tuple[int, int]]:
        """The chats and numbers that a search in the whole application finds, newest first by created_at."""
        found = self._pages(f"/applications/{self.token}/messages/search", query, limit)
        times = [item["created_at"] for item in found]
        assert times == sorted(times, reverse=True)
        return [(item["chat_number"], item["number"]) for item in found]

    def _pages(self, path: str, query: str, limit: int) -> list[Json]:
        answer = get(self.http, path, {"q": query, "limit": limit})
        found: list[Json] = answer.json()
        while "next" in answer.links:
            assert len(answer.json()) == limit, "a page with a next one is full"
            answer = get(self.http, answer.links["next"]["url"], None)
            found += answer.json()
        return found

    def ask(self, query: str, limit: int) -> None:
        """Both searches, by every way of paging, find what the oracle finds; each once, in order."""
        wanted = self.wanted(query)
        for chat in range(1, CHATS + 1):
            numbers = sorted((number for at, number in wanted if at == chat), reverse=True)
            said = [(number, self.bodies[chat, number]) for number in numbers]
            eventually_equal(partial(self.in_chat, chat, query, limit), said)
            eventually_equal(partial(self.in_chat_by_before, chat, query, limit), numbers)
        eventually_equal(lambda: sorted(self.in_application(query, limit)), sorted(wanted))


def get(http: httpx.Client, path: str, params: dict[str, str | int] | None) -> httpx.Response:
    """GET that must be 200."""
    answer = http.get(path, params=params)
    assert answer.status_code == 200, f"{answer.url}: {answer.text}"
    return answer


def cut(texts: list[str], how: tuple[int, int, int, Any]) -> str:
    """A query that has a chance: a piece of one of the texts, in another letter case."""
    which, start, length, case = how
    text = texts[which % len(texts)]
    start %= len(text)
    query: str = case(text[start : start + 1 + length % len(text)])
    return query[:256].replace("\0", "")


def new_corpus(http: httpx.Client) -> Corpus:
    """A fresh application with its chats."""
    token = http.post("/applications", json={"name": "Search"}).json()["token"]
    for _ in range(CHATS):
        assert http.post(f"/applications/{token}/chats").status_code == 201
    return Corpus(http, token)


def deep_corpus(http: httpx.Client) -> Corpus:
    """An application whose nasty messages lie below thousands of others, in each chat and in all."""
    corpus, chance = new_corpus(http), random.Random(DEEP_SEED)
    for chat in range(1, CHATS + 1):
        nasty = [chance.choices(PIECES, k=chance.randint(1, 12)) for _ in range(DEEP_MESSAGES // 2)]
        tangled = [chance.choices("ab", k=chance.randint(3, 14)) for _ in range(DEEP_MESSAGES // 2)]
        corpus.post(chat, ["".join(pieces) for pieces in nasty + tangled])
    for chat in range(1, CHATS + 1):
        for first in range(0, FILLERS, BATCH_MESSAGES):
            corpus.post(chat, [FILLER] * min(BATCH_MESSAGES, FILLERS - first))
    eventually_equal(partial(backlog, http), 0)
    return corpus


def backlog(http: httpx.Client) -> float:
    """How many messages the search index has not taken in yet, as the metrics tell."""
    line = r'^chat_backlog_entries\{projection="search"\} (\S+)$'
    found = re.search(line, http.get("/metrics").text, re.MULTILINE)
    assert found is not None
    return float(found[1])


@pytest.fixture
def http(house: House) -> Iterator[httpx.Client]:
    """A synchronous client of the shared house."""
    with httpx.Client(base_url=house.url, trust_env=False, timeout=30) as client:
        yield client


def test_search_finds_exactly_what_casefold_finds(http: httpx.Client) -> None:
    """For any text, any query of one character and more, before and after edits and deletions."""

    @budget(20)
    @given(
        first=st.lists(TEXTS, min_size=1, max_size=12),
        second=st.lists(TEXTS, max_size=6),
        changes=CHANGES,
        cuts=st.lists(CUTS, min_size=1, max_size=3),
        query=st.one_of(st.sampled_from(PIECES), TEXTS),
        limit=st.integers(1, 5),
    )
    def example(first: list[str], second: list[str], changes: Any, cuts: list[Any], query: str, limit: int) -> None:
        corpus = new_corpus(http)
        corpus.post(1, first)
        corpus.post(2, second)
        corpus.ask(query, limit)
        for pick, body in changes:
            corpus.change(pick, body)
        for one in (query, *(cut(first + second, how) for how in cuts)):
            corpus.ask(one, limit)

    example()


def test_search_finds_the_same_below_thousands_of_newer_messages(http: httpx.Client) -> None:
    """Far back as well, while edits and deletions go on, and once more at the end."""
    corpus = deep_corpus(http)
    deep = sorted(where for where, body in corpus.bodies.items() if body != FILLER)
    asked: list[str] = []

    @budget(25)
    @given(
        changes=CHANGES,
        cuts=st.lists(CUTS, min_size=2, max_size=4),
        query=st.one_of(st.sampled_from(PIECES), TEXTS, TANGLED),
        limit=st.sampled_from([20, 200]),
    )
    def example(changes: Any, cuts: list[Any], query: str, limit: int) -> None:
        for pick, body in changes:
            corpus.change(pick % len(deep), body)
        texts = [body for body in (corpus.bodies[where] for where in deep) if body]
        edited = [body for _, body in changes if body] or texts
        for one in (query, cut(edited, cuts[0]), *(cut(texts, how) for how in cuts[1:])):
            if not matches(one, FILLER):
                corpus.ask(one, limit)
                asked.append(one)

    example()
    for query in asked:
        corpus.ask(query, 200)
