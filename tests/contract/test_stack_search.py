"""The stack house's search index on a real Elasticsearch: what the conformance suite of the port does not ask."""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from msgspec import structs

from chat_system.errors import ConfigurationError, NotFound, Unavailable
from chat_system.model import ApplicationId, MessageChanged
from chat_system.ports import Entry, Found
from chat_system.stack import bulk
from chat_system.stack import search as room
from chat_system.stack.elasticsearch import Elasticsearch
from chat_system.stack.indices import Indices
from chat_system.stack.search import Rejected, StackSearch
from tests.properties.nasty_text import PIECES, matches

APPLICATION = ApplicationId(7)
OTHER = ApplicationId(77)
EVERYTHING = 10_000
UNKNOWN_CHAT = 404
CREATED_AT = 1_800_000_000_000
CHANGES: list[Callable[[str], str]] = [str.upper, str.lower, str.swapcase, str.casefold, lambda text: text[:-1] + "x"]


async def known(application: ApplicationId, chat: int = 1) -> None:
    """Every application and chat is known but one chat, as the store would say."""
    if chat == UNKNOWN_CHAT:
        raise NotFound


def entry(number: int, body: str | None, *, chat: int = 1, revision: int | None = None, **more: object) -> Entry:
    """A message of APPLICATION in some state; without a body it is a tombstone."""
    application = ApplicationId(int(str(more.pop("application", APPLICATION))))
    fields = {"sender": None, "metadata": None, "created_at": CREATED_AT + number, **more}
    if body is None:
        fields["deleted_at"] = CREATED_AT
    state = MessageChanged(number=number, revision=revision or number, body=body, **fields)  # type: ignore[arg-type]
    return Entry(f"0/1-{number}/0", application, chat, state)


@pytest.fixture
async def elasticsearch(elasticsearch_url: str) -> AsyncIterator[Elasticsearch]:
    """The real server, connected to as the house does."""
    made = Elasticsearch(elasticsearch_url)
    yield made
    await made.close()


@pytest.fixture
async def search(elasticsearch: Elasticsearch) -> AsyncIterator[StackSearch]:
    """A search index of this test's own, which does not exist yet."""
    made = StackSearch(elasticsearch, f"test-{secrets.token_hex(6)}", known, known)
    yield made
    await remove(made)


@pytest.fixture
async def index(search: StackSearch) -> StackSearch:
    """The same, made."""
    await search.create()
    return search


async def remove(search: StackSearch) -> None:
    """Delete all indices of an alias."""
    for name in await search.indices.all():
        await search.elasticsearch.ask("DELETE", f"/{name}")


async def numbers(search: StackSearch, text: str, chat: int = 1) -> list[int]:
    """What a search in one chat finds, by now."""
    await search.refresh()
    found = await search.in_chat(APPLICATION, chat, text.casefold(), before=None, limit=EVERYTHING)
    return [message.number for message in found]


def nasty_bodies(count: int, seed: int) -> list[str]:
    """Bodies of pieces that fold badly, of any characters, of white space, short and long."""
    choices = random.Random(seed)
    made = []
    for index in range(count):
        length = choices.choice([1, 2, 3, 9, 30, 90])
        pieces = choices.choices(PIECES, k=length)
        if index % 4 == 1:
            pieces = [chr(choices.choice([choices.randrange(1, 0xD800), choices.randrange(0xE000, 0x110000)]))] * length
        elif index % 4 == 2:
            pieces = choices.choices("ab \t\x01\x1f\u3000", k=length)
        made.append("".join(pieces))
    return made


async def test_search_finds_exactly_what_casefold_finds_at_every_length(index: StackSearch) -> None:
    """Pieces of nasty bodies, of 1 to 256 characters and in any letter case: no false hit, none missed."""
    bodies = nasty_bodies(400, 11)
    await index.apply([entry(number, body) for number, body in enumerate(bodies, 1)])
    choices = random.Random(12)
    for length in [*range(1, 12), 64, 65, 128, 255, 256] * 12:
        body = choices.choice([body for body in bodies if len(body) >= min(length, 60)])
        start = choices.randrange(max(1, len(body) - length + 1))
        change: Callable[[str], str] = choices.choice(CHANGES)
        query = change(body[start : start + length])[:256]
        wanted = [number for number, body in enumerate(bodies, 1) if matches(query, body)]
        assert await numbers(index, query) == wanted[::-1], query


async def test_a_query_that_folds_to_more_than_its_limit_is_answered(index: StackSearch) -> None:
    """256 ligatures fold to 768 letters: longer than any query may be, and still compared to the last one."""
    await index.apply([entry(1, "ﬃ" * 256), entry(2, "ffi" * 255 + "ff"), entry(3, "FFI" * 300)])
    assert await numbers(index, "ﬃ" * 256) == [3, 1]


async def test_a_search_before_the_first_message_finds_nothing(search: StackSearch) -> None:
    """There is no index yet: empty answers, no errors, and the house is ready."""
    assert await search.in_chat(APPLICATION, 1, "a", before=None, limit=5) == []
    assert await search.in_application(APPLICATION, "a", after=None, limit=5) == []
    assert await search.count(APPLICATION) == 0
    assert [one async for one in search.revisions(APPLICATION)] == []
    await search.refresh()
    await search.erase(APPLICATION)
    await search.ping()


async def test_what_a_caller_may_not_search_is_not_found(index: StackSearch) -> None:
    """The store's word on applications and chats is asked for before the index."""
    with pytest.raises(NotFound):
        await index.in_chat(APPLICATION, UNKNOWN_CHAT, "a", before=None, limit=5)


async def test_ten_that_create_the_index_at_once_make_one(search: StackSearch) -> None:
    """The alias stands for exactly one index, and creating it again changes nothing."""
    await asyncio.gather(*(search.create() for _ in range(10)))
    await search.create()
    assert await search.indices.all() == {f"{search.alias}-000001": True}


async def test_an_index_in_place_of_the_alias_is_refused_by_name(search: StackSearch) -> None:
    """Somebody else's index is never written to: the operator is told its name."""
    await search.elasticsearch.ask("PUT", f"/{search.alias}")
    try:
        with pytest.raises(ConfigurationError, match=search.alias):
            await search.create()
        assert await search.indices.all() == {}
    finally:
        await search.elasticsearch.ask("DELETE", f"/{search.alias}")


async def test_a_hit_is_the_message_as_the_store_would_show_it(index: StackSearch) -> None:
    """Every field comes back byte for byte, metadata as it was encoded, and times of any year."""
    states = [
        entry(1, "Grüße\x01\u2028", sender="Ünal", metadata=b'{"b":1.0,"a":"\\u0000","c":[[[[]]]]}', created_at=-5),
        entry(2, "grüße", created_at=-62_135_596_800_000, updated_at=253_402_300_799_999, revision=9),
        entry(3, "GRÜSSE und grüße", sender=None, metadata=b'{"a":' * 600 + b"1" + b"}" * 600),
    ]
    await index.apply(states)
    await index.refresh()
    in_chat = await index.in_chat(APPLICATION, 1, "grüsse", before=None, limit=5)
    assert list(in_chat) == [one.message.shown() for one in reversed(states)]
    found = await index.in_application(APPLICATION, "grüsse", after=None, limit=5)
    by_age = sorted(states, key=lambda one: one.message.created_at, reverse=True)
    assert [place for place, _ in found] == [Found(one.message.created_at, 1, one.message.number) for one in by_age]
    assert [(one.number, one.body, one.metadata, one.chat_number) for _, one in found] == [
        (shown.number, shown.body, shown.metadata, 1) for shown in (one.message.shown() for one in by_age)
    ]


async def test_an_older_state_never_comes_back(index: StackSearch) -> None:
    """Neither over an edit nor over a tombstone, in one call or in several; and repeats change nothing."""
    edit = [entry(1, "new", revision=5), entry(1, "old", revision=1)]
    deletion = [entry(2, None, revision=6), entry(2, "gone", revision=2), entry(2, "gone too", revision=3)]
    for entries in (edit + deletion, deletion[::-1] + edit, edit[1:], deletion[1:], edit + deletion):
        await index.apply(entries)
        assert await numbers(index, "new") == [1]
        assert await numbers(index, "o") + await numbers(index, "go") == []
    assert await index.count(APPLICATION) == 2


async def test_what_a_later_epoch_of_the_journal_tells_wins_over_any_earlier_revision(index: StackSearch) -> None:
    """What Redis lost after it was indexed gives way to what got its number afterwards, and does not come back."""
    lost = entry(1, "lost", revision=7)
    given_again = structs.replace(entry(1, "given again", revision=1), position="0/2-1/0")
    for entries in ([lost], [given_again], [lost], [lost, given_again]):
        await index.apply(entries)
    assert await numbers(index, "given again") == [1]
    assert await numbers(index, "lost") == []


async def test_more_than_one_request_holds_is_applied_whole(index: StackSearch) -> None:
    """By number of messages and by their size: the largest bodies, in which each character grows when encoded."""
    many = [entry(number, f"small {number}") for number in range(1, 2 * bulk.REQUEST_MAX_DOCUMENTS + 2)]
    large = [entry(number, "\x01" * (64 * 1024 - 1) + "A") for number in range(len(many) + 1, len(many) + 8)]
    await index.apply([*many, *large])
    assert len(await numbers(index, "small")) == len(many)
    assert await numbers(index, "\x01a") == [one.message.number for one in reversed(large)]


async def test_a_refused_document_is_named_and_the_others_are_indexed(search: StackSearch) -> None:
    """The error says which message it was, so that it alone is set aside."""
    narrow = {"aliases": {search.alias: {}}, "mappings": {"properties": {"number": {"type": "byte"}}}}
    await search.elasticsearch.ask("PUT", f"/{search.alias}-000001", narrow)
    with pytest.raises(Rejected, match="chat 1, message 300: "):
        await search.apply([entry(1, "one"), entry(300, "three hundred"), entry(2, "two")])
    await search.refresh()
    assert await search.count(APPLICATION) == 2


async def test_a_blocked_index_is_away_and_then_takes_all(index: StackSearch) -> None:
    """What an operator or a full disk blocks is no message's fault: it is waited for."""
    entries = [entry(1, "waits")]
    for block in ("write", "read_only_allow_delete"):
        await index.elasticsearch.ask("PUT", f"/{index.alias}/_settings", {f"index.blocks.{block}": True})
        with pytest.raises(Unavailable):
            await index.apply(entries)
        await index.elasticsearch.ask("PUT", f"/{index.alias}/_settings", {f"index.blocks.{block}": None})
    await index.apply(entries)
    assert await numbers(index, "waits") == [1]


async def test_what_stands_in_the_alias_s_place_is_waited_for(search: StackSearch) -> None:
    """An index of that name, or a second one behind the alias: the operator's to mend, and no message's fault."""
    ask, entries = search.elasticsearch.ask, [entry(1, "waits"), entry(2, "waits, too")]
    await ask("PUT", f"/{search.alias}")
    with pytest.raises(Unavailable):
        await search.apply(entries)
    await ask("DELETE", f"/{search.alias}")
    await search.create()
    await ask("PUT", f"/{search.alias}-other", {"aliases": {search.alias: {}}})
    with pytest.raises(Unavailable):
        await search.apply(entries)
    await ask("DELETE", f"/{search.alias}-other")
    await search.apply(entries)
    assert await numbers(search, "waits") == [2, 1]


async def test_a_closed_index_is_away_for_searches_too(index: StackSearch) -> None:
    """An index that is there and does not answer never reads as nothing found."""
    await index.apply([entry(1, "kept")])
    await index.elasticsearch.ask("POST", f"/{index.alias}/_close")
    for asking in (
        index.in_chat(APPLICATION, 1, "kept", before=None, limit=5),
        index.in_application(APPLICATION, "kept", after=None, limit=5),
        index.apply([entry(2, "more")]),
        index.count(APPLICATION),
        index.ping(),
    ):
        with pytest.raises(Unavailable):
            await asking
    await index.elasticsearch.ask("POST", f"/{index.alias}/_open")
    await index.elasticsearch.ask("GET", f"/_cluster/health/{index.alias}", wait_for_status="yellow")
    assert await numbers(index, "kept") == [1]


async def test_an_index_that_vanished_is_made_anew_while_messages_wait(index: StackSearch) -> None:
    """No index is ever made by guessing at its mapping: the call is retried on one that is ours."""
    await remove(index)
    with pytest.raises(Unavailable):
        await index.apply([entry(1, "Straße")])
    await index.apply([entry(1, "Straße")])
    assert await numbers(index, "TRASS") == [1]


async def test_nothing_listening_is_unavailable_everywhere() -> None:
    """Each call says so, at once and in one error, and none is retried behind the caller's back."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = Elasticsearch(f"http://127.0.0.1:{taken.getsockname()[1]}")
        away = StackSearch(nobody, "away", known, known)
        for asking in (
            away.create(),
            away.apply([entry(1, "x")]),
            away.in_chat(APPLICATION, 1, "x", before=None, limit=1),
            away.in_application(APPLICATION, "x", after=None, limit=1),
            away.count(APPLICATION),
            away.refresh(),
            away.erase(APPLICATION),
            away.ping(),
        ):
            with pytest.raises(Unavailable, match="Elasticsearch is away"):
                await asking
        await nobody.close()


async def test_an_address_without_a_port_is_refused() -> None:
    """It is the operator's to mend."""
    with pytest.raises(ConfigurationError, match="CHAT_ELASTICSEARCH_URL"):
        Elasticsearch("http://search.example")


async def test_erasing_takes_one_application_in_pieces(index: StackSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what was applied this moment, also tombstones, and from the index that a reindex is filling."""
    monkeypatch.setattr(room, "ERASE_PIECE_DOCUMENTS", 40)
    filling = f"{index.alias}-000002"
    await index.indices.make(filling, alias=f"{filling}-filling")
    mine: Sequence[Entry] = [entry(number, None if number % 3 == 0 else "mine") for number in range(1, 131)]
    others = [entry(number, "theirs", application=OTHER) for number in range(1, 61)]
    for alias in (index.alias, f"{filling}-filling"):
        await index.write(alias, [*mine, *others])
    await index.erase(APPLICATION)
    await index.refresh()
    for alias in (index.alias, f"{filling}-filling"):
        await index.refresh(alias=alias)
        assert await index.count(APPLICATION, alias=alias) == 0
        assert await index.count(OTHER, alias=alias) == 60


async def test_aliases_that_begin_alike_share_nothing(index: StackSearch) -> None:
    """Another installation's indices, whose names continue ours, are not taken for our own."""
    longer = Indices(index.elasticsearch, f"{index.alias}-more")
    await longer.create()
    try:
        assert await index.indices.all() == {f"{index.alias}-000001": True}
        await index.erase(APPLICATION)
    finally:
        for name in await longer.all():
            await index.elasticsearch.ask("DELETE", f"/{name}")
