"""Search of 1, 3 and 12 characters: in a short chat and in a long one of the large database, and in the small one.

What is searched for is chosen from the messages themselves: something that many contain, something that
hardly one contains, and something that none contains although its parts are common, which an index by
parts finds hardest. Each first page is compared with what Python finds before anything is measured. One
connection, so the figure is the time of one search; the limit is the bare ASGI app that answers the same
bytes. Of 3 characters, which is where the index begins to help, the small database is a limit as well: what is
stored beside a chat, and before its newest messages, must not slow down its search.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from bench.api import Numbered
from bench.bare import FixedAnswer
from bench.houses import Server
from bench.load import Load, get_request, run_load
from bench.measure import Contestant, Goal, Row, Sample, Stage, Wrong
from bench.scenarios.pages import as_bare_answer
from bench.workbench import LONG_CHAT, SEARCHED_CHAT, SHORT_CHAT, Filled, FilledChat, Workbench

LENGTHS = (1, 3, 12)
INDEXED_LENGTH = 3
PAGE = 50
SAMPLED = 3_000
CANDIDATES = 40
SHARE_OF_SECONDS = 0.2
"""There are many searches, so each gets a part of a scenario's usual time."""


@dataclass(frozen=True)
class Query:
    """Something to search for, and what must be found."""

    kind: str
    text: str
    hits: int
    first_page: list[int]


def queries(bodies: Sequence[str], length: int) -> Iterator[Query]:
    """A common, a rare and a missing text of so many characters, for bodies in the order of their numbers."""
    folded = [body.casefold() for body in bodies]
    dice = random.Random(length)
    sampled = folded if len(folded) <= SAMPLED else dice.sample(folded, SAMPLED)
    counted = Counter(part for body in sampled for part in parts(body, length))
    ranked = [part for part, _ in counted.most_common()]
    seldom = ranked[-CANDIDATES:]
    rare = min(seldom, key=lambda part: (sum(part in body for body in folded), part))
    yield look_up("common", ranked[0], folded)
    yield look_up("rare", rare, folded)
    yield look_up("none", missing(folded, length, dice), folded)


def parts(body: str, length: int) -> set[str]:
    """The parts of a body that have this length and do not begin or end with white space."""
    windows = {body[at : at + length] for at in range(len(body) - length + 1)}
    return {part for part in windows if part == part.strip()}


def missing(folded: Sequence[str], length: int, dice: random.Random) -> str:
    """A text of this length that no body contains: one unused character, or a mix of what is used."""
    everything = "\n".join(folded)
    if length == 1:
        return next(character for character in map(chr, range(0x2600, 0x2700)) if character not in everything)
    words = [word for body in folded[:SAMPLED] for word in body.split()]
    while True:
        mixed = " ".join(dice.choices(words, k=length)) if length > 3 else "".join(dice.choices(words, k=length))
        at = dice.randrange(len(mixed) - length + 1)
        text = mixed[at : at + length]
        if text == text.strip() and text not in everything:
            return text


def look_up(kind: str, text: str, folded: Sequence[str]) -> Query:
    """What a search must find: newest first."""
    numbers = [number for number, body in enumerate(folded, 1) if text in body]
    return Query(kind, text, len(numbers), numbers[-PAGE:][::-1])


def verified_answer(server: Server, chat: FilledChat, query: Query) -> tuple[str, FixedAnswer]:
    """The path of a search, and its answer.

    Raises:
        Wrong: it did not find what it must.
    """
    path = f"{chat.path.messages}/search?q={quote(query.text, safe='')}"
    answer = server.api.call("GET", path)
    found = [message.number for message in msgspec.json.decode(answer.body, type=list[Numbered])]
    if found != query.first_page:
        raise Wrong(f"search of {query.text!r} should find {query.first_page[:5]} ..., but found {found[:5]} ...")
    return path, answer


def contest(bench: Workbench, server: Server, label: str, chat: FilledChat, query: Query) -> Iterator[Contestant]:
    """A search, and the bare ASGI app with its answer."""
    path, answer = verified_answer(server, chat, query)

    def measure(port: int, seconds: float) -> Sample:
        load = Load(port, (get_request(path),), 200, 1, seconds * SHARE_OF_SECONDS)
        return {**bench.in_client(run_load, load).sample(), "hits": query.hits}

    def measure_bare(seconds: float) -> Sample:
        bench.bare_answers(as_bare_answer(answer))
        return measure(bench.bare.port, seconds)

    measure_ours: Callable[[float], Sample] = lambda seconds: measure(server.port, seconds)  # noqa: E731
    yield Contestant(label, measure_ours)
    yield Contestant(f"{label}, bare", measure_bare)


def set_up(bench: Workbench, stack: ExitStack) -> Stage:
    """All lengths and kinds, in each chat."""
    contestants: list[Contestant] = []
    rows: list[Row] = []
    goal = Goal("ratio", "at_most", 1.5)
    for filled, titles in ((bench.small, (LONG_CHAT,)), (bench.large, (SHORT_CHAT, SEARCHED_CHAT))):
        server = stack.enter_context(bench.server(filled.storage))
        server.rest()
        for title in titles:
            chat = filled.chats[title]
            bodies = [line.body for line in bench.corpus.messages(chat.first, chat.messages)]
            for length in LENGTHS:
                for query in queries(bodies, length):
                    label = _label(length, query.kind, chat, filled)
                    contestants += contest(bench, server, label, chat, query)
                    rows.append(Row(label, label, "p50_ms", "ms", f"{label}, bare", "bare ASGI, same bytes"))
                    if length == INDEXED_LENGTH and title == SEARCHED_CHAT:
                        small = _label(length, query.kind, bench.small.chats[LONG_CHAT], bench.small)
                        rows.append(Row(label, label, "p50_ms", "ms", small, small, goal=goal))
    return Stage(contestants, rows)


def _label(length: int, kind: str, chat: FilledChat, filled: Filled) -> str:
    return f"search {length}, {kind}, in {chat.messages:,} of {filled.messages:,}"
