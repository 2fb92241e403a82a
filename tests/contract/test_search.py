"""SearchIndex: exactly what `casefold` finds, at every length, however far the index is behind.

The corpora are longer than what a house may read without its index (RECENT_MESSAGES in the embedded one), so
that recent and old messages, indexed and queued ones all take part. `drained` corpora are indexed to the end.

A house whose search lags is first brought up to date by each check: there the states in between are not promised.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from chat_system.embedded.search import RECENT_MESSAGES
from chat_system.model import ApplicationId, NewMessage, PostMessages
from chat_system.ports import Found
from tests.contract.houses import OpenHouse
from tests.properties.nasty_text import PIECES, matches

LENGTH = RECENT_MESSAGES + 700
BATCH = 500
EVERYTHING = 10_000

FIRST_WORDS = [
    "alpha",
    "Straße",
    "ΟΔΟΣ",
    "İstanbul",
    "ﬁne",
    "naïve",
    "e\u0301te\u0301",
    "👩\u200d🚀 go",
    "中文字",
    "Ꭰꭰ",
    "100%_x",
    'say "hi"',
]
OPERATORS = [
    *(
        '"',
        '""',
        '"""',
        "'",
        "''",
        "*",
        "a*",
        "alpha*",
        "^alpha",
        "-alpha",
        "+",
        "NOT",
        "AND",
        "OR",
        "alpha AND x",
    ),
    *(
        "NEAR(",
        "NEAR(a b)",
        "folded:",
        "folded : alpha",
        "(",
        ")",
        "()",
        "{",
        "}",
        ":",
        ";",
        "--",
        "/*",
        "\\",
        "%",
        "_",
    ),
    *(
        '"alpha" OR "x"',
        "alpha OR beta",
        'a"b',
        '"a',
        "x'; DROP TABLE messages; --",
        "   ",
        "\t",
        "\n",
        "?1",
        ":ids",
    ),
]


@dataclass
class Corpus:
    """One application's messages: what each says, by chat and number; None when deleted."""

    ports: OpenHouse
    application: ApplicationId
    bodies: dict[tuple[int, int], str | None] = field(default_factory=dict)
    created_at: dict[tuple[int, int], int] = field(default_factory=dict)

    async def post(self, chat: int, bodies: Sequence[str], sent_at: Sequence[int] | None = None) -> None:
        """Post them in batches."""
        for start in range(0, len(bodies), BATCH):
            piece = bodies[start : start + BATCH]
            times = None if sent_at is None else list(sent_at[start : start + BATCH])
            change = PostMessages(chat, [NewMessage(body) for body in piece], times)
            receipt = await self.ports.journal.append(self.application, change)
            for index, body in enumerate(piece):
                self.bodies[chat, receipt.number + index] = body
                self.created_at[chat, receipt.number + index] = receipt.at if times is None else times[index]

    async def edit(self, chat: int, number: int, body: str) -> None:
        """Edit one message."""
        await self.ports.edit(self.application, chat, number, body)
        self.bodies[chat, number] = body

    async def delete(self, chat: int, number: int) -> None:
        """Delete one message."""
        await self.ports.delete(self.application, chat, number)
        self.bodies[chat, number] = None

    def wanted(self, query: str) -> set[tuple[int, int]]:
        """What the oracle finds."""
        return {place for place, body in self.bodies.items() if body is not None and matches(query, body)}

    async def in_chat(self, chat: int, query: str, limit: int) -> list[int]:
        """The numbers that are found in a chat, over all pages."""
        found: list[int] = []
        while True:
            page = await self.ports.search.in_chat(
                self.application, chat, query.casefold(), before=found[-1] if found else None, limit=limit
            )
            assert [message.body for message in page] == [self.bodies[chat, message.number] for message in page]
            found += [message.number for message in page]
            if len(page) < limit:
                return found

    async def in_application(self, query: str, limit: int) -> list[tuple[int, int]]:
        """The chats and numbers that are found in the application, over all pages."""
        found: list[tuple[int, int]] = []
        after: Found | None = None
        while True:
            page = await self.ports.search.in_application(self.application, query.casefold(), after=after, limit=limit)
            for place, message in page:
                assert (place.chat, place.number) == (message.chat_number, message.number)
                assert message.body == self.bodies[place.chat, place.number]
            found += [(place.chat, place.number) for place, _ in page]
            if len(page) < limit:
                return found
            after = page[-1][0]

    async def check(self, query: str, limit: int = EVERYTHING) -> None:
        """Both searches find what the oracle finds, each message once, newest first."""
        await self.ports.until_searchable()
        wanted = self.wanted(query)
        for chat in {chat for chat, _ in self.bodies}:
            numbers = sorted((number for at, number in wanted if at == chat), reverse=True)
            assert await self.in_chat(chat, query, limit) == numbers, query
        newest_first = sorted(wanted, key=lambda place: (self.created_at[place], *place), reverse=True)
        assert await self.in_application(query, limit) == newest_first, query


def texts(count: int, seed: int) -> list[str]:
    """Bodies made of words that fold in surprising ways; each carries a number that only it has."""
    choices = random.Random(seed)
    made = []
    for index in range(count):
        words = [*choices.choices(FIRST_WORDS, k=2), *choices.choices(PIECES, k=2), f"#{index}."]
        choices.shuffle(words)
        made.append(choices.choice(["", " "]).join(words))
    return made


def pieces_of(corpus: Corpus, seed: int, count: int) -> list[str]:
    """Queries that have a chance: pieces of all lengths of some bodies, in any letter case."""
    choices = random.Random(seed)
    bodies = [body for _, body in sorted(corpus.bodies.items()) if body is not None]
    made = []
    for index in range(count):
        body = choices.choice(bodies)
        length = 1 + index % len(body)
        start = choices.randrange(len(body) - length + 1)
        piece = body[start : start + length]
        made.append(choices.choice([piece, piece.upper(), piece.lower(), piece.casefold(), piece.swapcase()]))
    return made


@pytest.fixture
async def corpus(ports: OpenHouse, application: ApplicationId) -> Corpus:
    """An application with a long chat and a short one, nothing of it indexed yet."""
    made = Corpus(ports, application)
    for count, seed in ((LENGTH, 1), (40, 2)):
        await made.post(await ports.open_chat(application), texts(count, seed))
    return made


async def change_some(corpus: Corpus, seed: int) -> None:
    """Edit and delete messages old and new."""
    choices = random.Random(seed)
    for number in choices.sample(range(1, LENGTH - 20), 12):
        await corpus.edit(1, number, f"edited {choices.choice(FIRST_WORDS)} of {number}")
    for number in (LENGTH - 3, 5, 6, 7):
        if corpus.bodies[1, number] is not None:
            await corpus.delete(1, number)
    await corpus.edit(2, 1, "edited Straße elsewhere")


async def test_search_finds_exactly_what_casefold_finds(corpus: Corpus) -> None:
    """Unindexed, half indexed, indexed, changed since, indexed again: always the same as the oracle."""
    queries = [*pieces_of(corpus, 3, 24), *FIRST_WORDS[:6], "edited", "STRASSE", "no such text", "#7.", "ss"]
    for query in queries:
        await corpus.check(query)
    await change_some(corpus, 4)
    for query in queries[::3]:
        await corpus.check(query)
    projector = corpus.ports.projector(batch=900)
    await projector.step()
    for query in queries[1::3]:
        await corpus.check(query)
    await projector.drain()
    for query in queries:
        await corpus.check(query)
    await change_some(corpus, 5)
    for query in queries:
        await corpus.check(query)
    await projector.drain()
    for query in queries[2::3]:
        await corpus.check(query)


async def test_no_character_of_a_query_has_a_meaning(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """Quotes, wildcards and the operators of query languages are text like any other, indexed or not."""
    corpus = Corpus(ports, application)
    await corpus.post(chat, [f"<{operator}> ALPHA" for operator in OPERATORS])
    await corpus.post(chat, [f"filler {index}" for index in range(RECENT_MESSAGES + 10)])
    for operator in OPERATORS[::5]:
        await corpus.check(operator)
    await ports.projector(batch=2_000).drain()
    for operator in OPERATORS:
        await corpus.check(operator)
        await corpus.check(f"<{operator}> alph")


async def test_pages_of_every_size_hold_the_same(corpus: Corpus) -> None:
    """However small the pages, each match comes once, also where recent and indexed messages meet."""
    await corpus.ports.projector(batch=2_000).drain()
    await change_some(corpus, 6)
    for query, limit in (
        ("naïve", 97),
        ("naïve", 400),
        ("#27", 1),
        ("edited", 2),
        ("xyz" * 30, 1),
        ("İ", 120),
    ):
        await corpus.check(query, limit)


async def test_a_long_query_is_compared_to_its_last_character(corpus: Corpus) -> None:
    """Also when it has more pieces than an index is asked for; one that differs at the end finds nothing."""
    choices = random.Random(9)
    long = "".join(choices.choices("abcdefghijklmnopqrstuvwxyzäöü", k=400))
    chat = await corpus.ports.open_chat(corpus.application)
    await corpus.post(chat, [long, long[:255] + "!", long[::-1]])
    await corpus.post(chat, [f"filler {index}" for index in range(RECENT_MESSAGES + 10)])
    await corpus.ports.projector(batch=2_000).drain()
    for length in (3, 4, 26, 27, 74, 75, 76, 255, 256):
        await corpus.check(long[:length])
        await corpus.check(long[100 : 100 + length].upper())
        await corpus.check(long[: length - 1] + "?")


async def test_messages_are_found_by_age_whatever_their_numbers(ports: OpenHouse, application: ApplicationId) -> None:
    """Imported times, equal ones too, order a search over an application: by time, then chat, then number."""
    corpus = Corpus(ports, application)
    for _ in range(3):
        await ports.open_chat(application)
    for chat, step in ((2, 7), (1, -3), (3, 0)):
        await corpus.post(
            chat,
            [f"needle {chat} {index}" for index in range(30)],
            [1_000 + step * index for index in range(30)],
        )
    for limit in (1, 7, 30, EVERYTHING):
        await corpus.check("needle", limit)
        await corpus.check("needle 1", limit)
    await ports.projector().drain()
    for limit in (7, EVERYTHING):
        await corpus.check("needle", limit)


async def test_a_large_application_of_small_chats_is_searched_whole(
    ports: OpenHouse, application: ApplicationId
) -> None:
    """More messages than are read without the index, none of its chats long: by one letter and by many."""
    corpus = Corpus(ports, application)
    for seed in range(8):
        chat = await ports.open_chat(application)
        await corpus.post(chat, [f"{text} w{seed}" for text in texts(RECENT_MESSAGES // 5, seed)])
    queries = ["w0", "W7", "#39", "ß", "straße w3", "alpha"]
    for query in queries:
        await corpus.check(query)
    await ports.projector(batch=2_000).drain()
    for query in queries:
        await corpus.check(query, 300)


async def test_applying_again_and_out_of_order_changes_nothing(corpus: Corpus) -> None:
    """Entries that are applied twice, late or in reverse leave what the highest revision says."""
    ports = corpus.ports
    first = await ports.journal.read("search", EVERYTHING)
    await ports.search.apply(first)
    await change_some(corpus, 8)
    second = await ports.journal.read("search", EVERYTHING)
    await ports.search.apply(list(reversed(second)))
    await ports.search.apply(first)
    await ports.search.apply([*second, *first, *second])
    await ports.journal.acknowledge("search", [*first, *second])
    await ports.projector(batch=2_000).drain()
    for query in ("edited", "alpha", "straße", "#5.", "#26", "ss"):
        await corpus.check(query)
    await ports.search.apply([])


async def test_what_was_deleted_or_edited_away_is_found_no_more(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """From the moment the change returned, whether it was indexed before or not; by its new body at once."""
    corpus = Corpus(ports, application)
    await corpus.post(chat, [f"secret {index}" for index in range(RECENT_MESSAGES + 30)])
    for number in (1, 2, RECENT_MESSAGES + 29):
        await corpus.delete(chat, number)
        await corpus.edit(chat, number + 3 if number < 9 else number - 1, "harmless")
        await corpus.check("secret")
        await corpus.check("harmless")
    await ports.projector(batch=2_000).drain()
    await corpus.delete(chat, 10)
    await corpus.edit(chat, 11, "harmless too")
    await corpus.edit(chat, 11, "a secret again")
    for query in ("secret", "harmless", "a secret", "secret 1"):
        await corpus.check(query)


async def test_neither_chats_nor_applications_find_each_others_messages(ports: OpenHouse) -> None:
    """Three applications with the same words in several chats: each finds its own."""
    corpora = []
    for _ in range(3):
        corpus = Corpus(ports, await ports.new_application())
        for seed in range(2):
            await corpus.post(await ports.open_chat(corpus.application), texts(60, seed))
        corpora.append(corpus)
    for _ in range(2):
        for corpus in corpora:
            for query in ("alpha", "ß", "#1", "中文"):
                await corpus.check(query, 25)
        await ports.projector().drain()
