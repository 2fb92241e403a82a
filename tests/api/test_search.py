"""Search: exact substrings after case folding, newest first (API.md, "Search")."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.api.links import link_query, pages
from tests.api.problems import expect_invalid, expect_not_found
from tests.api.shapes import MESSAGE_FIELDS
from tests.client import ChatAt, Client, Fields, Message, expect
from tests.eventually import eventually

# body, a query that must find it
MATCHES: dict[str, tuple[str, str]] = {
    "itself": ("hello", "hello"),
    "one character": ("hello", "l"),
    "two characters": ("hello", "el"),
    "three characters": ("hello", "llo"),
    "across words": ("good morning", "d m"),
    "upper case": ("hello", "HELLO"),
    "lower case": ("HELLO", "hello"),
    "sharp s by ss": ("Straße", "STRASSE"),
    "ss by sharp s": ("STRASSE", "straße"),
    "half of a sharp s": ("Maß", "mas"),
    "ligature by a part": ("eﬃcient", "fi"),
    "final sigma": ("ΟΔΟΣ", "οδος"),
    "sigma by final sigma": ("οδοσ", "ΟΔΟς"),
    "dotted capital i": ("İstanbul", "i\u0307stan"),
    "kelvin sign": ("300 \u212a", "300 k"),
    "cherokee": ("\uab70", "\u13a0"),
    "armenian ligature": ("\u0587", "\u0565\u0582"),
    "chinese": ("我喜欢北京烤鸭", "北京"),
    "one ideograph": ("我喜欢北京烤鸭", "鸭"),
    "japanese": ("東京タワー", "タワ"),
    "thai": ("สวัสดีครับ", "ดีค"),
    "arabic": ("مرحبا بالعالم", "بالع"),
    "hebrew": ("שלום עולם", "ום ע"),
    "devanagari vowel sign": ("नमस्ते", "\u094d"),
    "emoji": ("see you 👍🏽 soon", "👍🏽"),
    "part of an emoji sequence": ("👩\u200d👧", "👧"),
    "skin tone alone": ("👍🏽", "🏽"),
    "astral letters": ("𐐀𐐁", "𐐩"),
    "combining mark alone": ("e\u0301", "\u0301"),
    "percent": ("100% sure", "0% s"),
    "underscore": ("snake_case", "e_c"),
    "asterisk": ("2 * 3", "* 3"),
    "question mark": ("really?", "ly?"),
    "double quotes": ('say "hi" now', '"hi"'),
    "one double quote": ('12" pipe', '"'),
    "single quote": ("it's", "t's"),
    "backslash": ("C:\\temp", ":\\t"),
    "brackets": ("a[0-9]{2}(x)|y^$", "[0-9]{2}(x)|y^$"),
    "operators of full text engines": ("NEAR(a b) AND -c OR c^2~1", "AND -c OR c^2~1"),
    "slash and colon": ("http://a:b", "//a:b"),
    "white space": ("a  b", "  "),
    "tab": ("a\tb", "\t"),
    "line break": ("line one\nline two", "one\nline"),
    "leading space": (" padded", " p"),
    "control character": ("a\x01b", "\x01"),
    "zero width": ("a\u200bb", "\u200b"),
    "noncharacter": ("a\uffffb", "\uffff"),
    "html": ("<b>bold</b>", "<b>"),
}

# body, a query that must not find it
MISSES: dict[str, tuple[str, str]] = {
    "percent is no wildcard": ("hello", "h%o"),
    "underscore is no wildcard": ("hello", "h_llo"),
    "asterisk is no wildcard": ("hello", "h*o"),
    "question mark is no wildcard": ("hello", "h?llo"),
    "quotes are not dropped": ("hello world", '"hello"'),
    "backslash is not dropped": ("100%", "100\\%"),
    "words are not reordered": ("one two", "two one"),
    "white space is not collapsed": ("a  b", "a b"),
    "white space is not trimmed": ("hello", "hello "),
    "accents are not removed": ("café", "cafe"),
    "composed is not decomposed": ("caf\u00e9", "cafe\u0301"),
    "full width is not ascii": ("ＡＢＣ", "abc"),
    "no stemming": ("running", "runs"),
    "turkish dotless i": ("ı", "i"),
    "trigrams far apart": ("abcd bcde cdef", "abcdef"),
}


MIXED_WORDS = """
the quick ẞ ß SS ss İ i̇ ﬁ fi Σ ς σ 東京 京 😀 👍🏽 % _ * " ' \\ é e\u0301 א ب ก naïve AND OR NOT a ab abc
"""


async def search_numbers(chat: ChatAt, q: str, **params: Any) -> list[int]:
    """The numbers of the messages that a search finds."""
    return [message["number"] for message in await chat.search(q, **params)]


async def wait_until_found(chat: ChatAt, body: str) -> None:
    """Wait until the chat's newest message, whose body is given, can be found: all before it can, too."""

    async def newest() -> list[str]:
        return [message["body"] or "" for message in await chat.search(body[:256], limit=1)]

    await eventually(newest, [body])


@pytest.mark.parametrize(("body", "q"), MATCHES.values(), ids=MATCHES)
async def test_a_folded_substring_matches(chat: ChatAt, body: str, q: str) -> None:
    """Whatever Python's casefold makes a substring is found, in the chat and in the application."""
    assert q.casefold() in body.casefold()
    message = await chat.post(body)
    await chat.post("\u2603\u2603\u2603")
    await eventually(lambda: chat.search(q), [message])
    await eventually(lambda: chat.client.search(chat.token, q), [{**message, "chat_number": 1}])


@pytest.mark.parametrize(("body", "q"), MISSES.values(), ids=MISSES)
async def test_what_is_no_folded_substring_does_not_match(chat: ChatAt, body: str, q: str) -> None:
    """Nothing is a wildcard, an operator or an approximation."""
    assert q.casefold() not in body.casefold()
    await chat.post(body)
    await wait_until_found(chat, body)
    assert await chat.search(q) == []
    assert await chat.client.search(chat.token, q) == []


async def test_a_search_in_a_chat_returns_whole_messages_newest_first(chat: ChatAt) -> None:
    """Items are messages as they are read, by descending number."""
    await chat.post_batch("needle one", "hay", "needle two", "NEEDLE three")
    await eventually(lambda: search_numbers(chat, "needle"), [4, 3, 1])
    found = await chat.search("needle")
    assert all(set(message) == MESSAGE_FIELDS for message in found)
    assert found == [await chat.message(number) for number in (4, 3, 1)]


async def test_a_search_in_a_chat_is_paged_by_before(chat: ChatAt) -> None:
    """`before` continues below a number, `limit` cuts, and the links lead on to the end."""
    await chat.post_batch(*(f"needle {index}" for index in range(1, 11)))
    await eventually(lambda: search_numbers(chat, "needle"), list(range(10, 0, -1)))
    assert await search_numbers(chat, "needle", limit=3) == [10, 9, 8]
    assert await search_numbers(chat, "needle", limit=3, before=8) == [7, 6, 5]
    assert await search_numbers(chat, "needle", before=1) == []
    found = await pages(chat.client, f"{chat.path}/messages/search", q="needle", limit=4)
    assert [[each["number"] for each in page] for page in found] == [[10, 9, 8, 7], [6, 5, 4, 3], [2, 1]]
    first = await chat.request("GET", "/messages/search", params={"q": "needle", "limit": 4})
    assert link_query(first, "next") == {"q": "needle", "limit": "4", "before": "7"}


async def test_links_of_a_search_keep_a_delicate_query(chat: ChatAt) -> None:
    """The query travels along unharmed, whatever must be escaped in it."""
    q = 'é&=+%/?#"<> 😀;,'
    await chat.post_batch(*(f"{q} {index}" for index in range(3)))
    await eventually(lambda: search_numbers(chat, q), [3, 2, 1])
    for path in (f"{chat.path}/messages/search", f"/applications/{chat.token}/messages/search"):
        found = await pages(chat.client, path, q=q, limit=1)
        assert [each["number"] for page in found for each in page] == [3, 2, 1]


async def test_a_search_returns_50_unless_told_otherwise(chat: ChatAt) -> None:
    """`limit` is as in lists: 50 if absent, up to 200, for chat and application."""
    await chat.post_batch(*(f"needle {index}" for index in range(1, 206)))
    await eventually(lambda: search_numbers(chat, "needle"), list(range(205, 155, -1)))
    assert await search_numbers(chat, "needle", limit=200) == list(range(205, 5, -1))
    assert len(await chat.client.search(chat.token, "needle")) == 50
    assert len(await chat.client.search(chat.token, "needle", limit=200)) == 200


async def test_a_search_over_an_application_finds_every_chat_newest_first(client: Client, chat: ChatAt) -> None:
    """Items carry `chat_number` and are ordered by creation time, across chats."""
    second = await client.create_chat(chat.token)
    expected: list[Fields] = []
    for index in range(6):
        each = (chat, second)[index % 2]
        message = await each.post(f"needle {index}")
        expected.insert(0, {**message, "chat_number": each.number})
    assert set(expected[0]) == MESSAGE_FIELDS | {"chat_number"}

    async def found() -> list[Fields]:
        return sorted(await client.search(chat.token, "needle"), key=_place)

    await eventually(found, sorted(expected, key=_place))
    times = [each["created_at"] for each in await client.search(chat.token, "needle")]
    assert times == sorted(times, reverse=True)


def _place(found: Fields) -> tuple[int, int]:
    return found["chat_number"], found["number"]


async def test_a_search_over_an_application_is_paged_by_link(client: Client, chat: ChatAt) -> None:
    """The links lead through every hit once, also where many were created in the same millisecond."""
    second = await client.create_chat(chat.token)
    for each in (chat, second, chat):
        await each.post_batch(*(f"needle {index}" for index in range(10)))

    async def count() -> int:
        return len(await client.search(chat.token, "needle"))

    await eventually(count, 30)
    path = f"/applications/{chat.token}/messages/search"
    found = [each for page in await pages(client, path, q="needle", limit=7) for each in page]
    assert found == await client.search(chat.token, "needle", limit=200)
    assert len({_place(each) for each in found}) == 30


async def test_a_cursor_that_no_link_carried_is_400(client: Client, chat: ChatAt) -> None:
    """The cursor of an application's search is not for making up either."""
    await chat.post_batch("needle", "needle")

    async def count() -> int:
        return len(await client.search(chat.token, "needle"))

    await eventually(count, 2)
    path = f"/applications/{chat.token}/messages/search"
    response = expect(await client.get(path, params={"q": "needle", "limit": 1}), 200)
    (name,) = set(link_query(response, "next")) - {"limit", "q"}
    for forged in ("", "x", "!!", "AAAA", "é", "9" * 500):
        expect_invalid(await client.get(path, params={"q": "needle", name: forged}), f"?{name}")


async def test_an_edited_message_matches_by_its_new_body_only(chat: ChatAt) -> None:
    """The old words no longer find it, the new ones do."""
    await chat.post("old words")
    await eventually(lambda: search_numbers(chat, "old"), [1])
    edited = await chat.edit(1, body="new words")
    await eventually(lambda: chat.search("new"), [edited])
    nothing: list[int] = []
    await eventually(lambda: search_numbers(chat, "old"), nothing)
    assert await chat.search("words") == [edited]
    assert await chat.client.search(chat.token, "old") == []


async def test_a_deleted_message_never_matches(chat: ChatAt) -> None:
    """A tombstone is found by nothing, neither its old words nor its sender."""
    await chat.post("secret needle", sender="needle")
    await chat.post("needle stays")
    await eventually(lambda: search_numbers(chat, "needle"), [2, 1])
    await chat.delete(1)
    await eventually(lambda: search_numbers(chat, "needle"), [2])
    assert await chat.client.search(chat.token, "secret") == []


async def test_only_bodies_are_searched(chat: ChatAt) -> None:
    """Sender and metadata are not part of the text."""
    await chat.post("body", sender="sender", metadata={"key": "value"})
    await wait_until_found(chat, "body")
    for q in ("sender", "key", "value"):
        assert await chat.search(q) == []


async def test_the_end_of_the_longest_message_is_found(chat: ChatAt) -> None:
    """A body of 64 KiB is searched to its last character."""
    message = await chat.post("x" * (64 * 1024 - 6) + "needle")
    await eventually(lambda: chat.search("xneedle"), [message])
    assert await chat.search("needlex") == []


@pytest.mark.parametrize("path", ["{chat}/messages/search", "/applications/{token}/messages/search"])
@pytest.mark.parametrize("q", [None, "", "x" * 257, "é" * 257, "a\x00b"])
async def test_a_query_out_of_its_limits_is_400(client: Client, chat: ChatAt, path: str, q: str | None) -> None:
    """Missing, empty, longer than 256 characters, or with a NUL: `?q` is to blame."""
    params = {} if q is None else {"q": q}
    expect_invalid(await client.get(path.format(chat=chat.path, token=chat.token), params=params), "?q")


@pytest.mark.parametrize("path", ["{chat}/messages/search", "/applications/{token}/messages/search"])
@pytest.mark.parametrize("q", ["x" * 256, "ß" * 256, "😀" * 256], ids=["ascii", "longer when folded", "astral"])
async def test_a_query_of_256_characters_is_accepted(client: Client, chat: ChatAt, path: str, q: str) -> None:
    """The limit counts characters of the query as sent, not bytes and not folded characters."""
    await chat.post(f"before {q} after")
    await wait_until_found(chat, f"before {q} after")
    found = await client.get_json(path.format(chat=chat.path, token=chat.token), q=q)
    assert [each["number"] for each in found] == [1]


@pytest.mark.parametrize("raw", ["%FF", "a%C3", "%ED%A0%80", "%C0%AF"])
async def test_a_query_that_is_no_utf8_is_400(client: Client, chat: ChatAt, raw: str) -> None:
    """Lone surrogates and broken sequences are refused, not replaced."""
    expect_invalid(await client.get(f"{chat.path}/messages/search?q={raw}"))
    expect_invalid(await client.get(f"/applications/{chat.token}/messages/search?q={raw}"))


async def test_a_plus_in_a_query_is_a_space(chat: ChatAt) -> None:
    """Query strings are form-encoded, as browsers send them; %2B is a plus."""
    await chat.post_batch("a b", "a+b")
    await wait_until_found(chat, "a+b")
    for raw, number in [("a+b", 1), ("a%20b", 1), ("a%2Bb", 2)]:
        response = await chat.client.get(f"{chat.path}/messages/search?q={raw}")
        assert [each["number"] for each in expect(response, 200).json()] == [number]


@pytest.mark.parametrize("before", ["abc", "-1", "", "1.5"])
async def test_an_ill_formed_before_is_400(chat: ChatAt, before: str) -> None:
    """The bound of a search is a number, as in lists."""
    expect_invalid(await chat.request("GET", "/messages/search", params={"q": "x", "before": before}), "?before")


async def test_search_agrees_with_python_on_a_mixed_corpus(client: Client, chat: ChatAt) -> None:
    """Hundreds of bodies of many scripts, edited and deleted in part: each query finds what Python finds."""
    rng = random.Random(20261122)
    words = MIXED_WORDS.split()
    bodies = [" ".join(rng.choices(words, k=rng.randint(1, 8))) for _ in range(300)]
    for start in range(0, 300, 100):
        await chat.post_batch(*bodies[start : start + 100])
    current: dict[int, str] = dict(enumerate(bodies, start=1))
    for number in rng.sample(range(1, 301), 30):
        current[number] = "edited " + rng.choice(words)
        await chat.edit(number, body=current[number])
    for number in rng.sample(range(1, 301), 30):
        del current[number]
        await chat.delete(number)
    last: Message = await chat.post("the very last one")
    current[last["number"]] = "the very last one"
    await wait_until_found(chat, "the very last one")
    for q in [*words, *(body[start : start + 4] for body in bodies[:30] for start in (0, 3) if body[start:])]:
        wanted = [number for number, body in sorted(current.items(), reverse=True) if q.casefold() in body.casefold()]
        await eventually(lambda q=q: search_numbers(chat, q, limit=200), wanted[:200])  # type: ignore[misc]
        over_all = await client.search(chat.token, q, limit=200)
        assert len(over_all) == min(200, len(wanted))
        assert {each["number"] for each in over_all} <= set(wanted)


async def test_the_search_alias_finds_and_pages_like_its_path(client: Client, chat: ChatAt) -> None:
    """The alias takes the same parameters and gives the same answers."""
    await chat.post_batch(*(f"needle {index}" for index in range(5)))
    await eventually(lambda: search_numbers(chat, "needle"), [5, 4, 3, 2, 1])
    alias, token = "/chats/1/messages/search", {"token": chat.token}
    found = await client.get_json(alias, q="needle", limit=2, before=4, **token)
    assert found == await chat.search("needle", limit=2, before=4)
    assert [[each["number"] for each in page] for page in await pages(client, alias, q="needle", limit=2, **token)] == [
        [5, 4],
        [3, 2],
        [1],
    ]
    expect_invalid(await client.get(alias, params=token), "?q")
    expect_not_found(await client.get("/chats/2/messages/search", params={"q": "x"} | token))
