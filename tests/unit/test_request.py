"""Request: bodies are read strictly, and requests that are equal as JSON have one fingerprint."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chat_system.errors import Invalid, TooLarge, UnsupportedMediaType
from chat_system.model import (
    BODY_MAX_BYTES,
    METADATA_MAX_BYTES,
    NAME_MAX_CHARACTERS,
    ChatEdit,
    NewApplication,
    NewChat,
    NewMessage,
    NewMessages,
    Once,
)
from chat_system.web.request import (
    NEW_APPLICATION,
    NEW_CHAT,
    NEW_MESSAGE,
    NEW_MESSAGES,
    ClientGone,
    Request,
)
from tests.unit.requests import make_request

CAP_BYTES = 1024 * 1024


async def read(body: bytes, kind: Any = NewMessage, decoder: Any = NEW_MESSAGE, **options: Any) -> tuple[Any, Request]:
    """The body as the web layer takes it."""
    request = make_request(body=options.pop("pieces", [body]), method="POST", **options)
    request.body_max_bytes = CAP_BYTES
    if not request.body.is_complete:
        await request.receive()
    return request.read(kind, decoder), request


def now(coroutine: Any) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waited")


# A strict reader of our own: Python's json module, told to refuse what the contract refuses.


class RefusedError(Exception):
    """The strict reader does not take it."""


def strictly(body: bytes) -> Any:
    """JSON in UTF-8, with no key twice, no U+0000, no lone surrogate, no number out of range."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise RefusedError
        return dict(pairs)

    def refuse(text: str) -> Any:
        raise RefusedError

    def number(text: str) -> float:
        if float(text) in (float("inf"), float("-inf")):
            raise RefusedError
        return float(text)

    def integer(text: str) -> int:
        if not -(2**63) <= int(text) < 2**64:
            raise RefusedError
        return int(text)

    try:
        value = json.loads(
            body.decode(), object_pairs_hook=unique, parse_constant=refuse, parse_float=number, parse_int=integer
        )
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        raise RefusedError from None
    if "\\u0000" in json.dumps(value):
        # What json.dumps writes for U+0000; an escaped backslash before u0000 has another one in front.
        check_texts(value)
    return value


def check_texts(value: Any) -> None:
    """No text and no key contains U+0000."""
    if isinstance(value, str) and "\0" in value:
        raise RefusedError
    if isinstance(value, dict):
        for name, item in value.items():
            check_texts(name)
            check_texts(item)
    if isinstance(value, list):
        for item in value:
            check_texts(item)


def wanted_message(body: bytes) -> dict[str, Any]:
    """What a message's body says, by the contract, or RefusedError."""
    return wanted_item(strictly(body))


def wanted_batch(body: bytes) -> dict[str, Any]:
    """The same of a batch's."""
    value = strictly(body)
    if not isinstance(value, dict) or set(value) != {"messages"} or not isinstance(value["messages"], list):
        raise RefusedError
    if not value["messages"]:
        raise RefusedError
    return {"messages": list(map(wanted_item, value["messages"]))}


def wanted_item(value: Any) -> dict[str, Any]:
    """What a message says that was read strictly."""
    if not isinstance(value, dict) or not {"body"} <= set(value) <= {"body", "sender", "metadata"}:
        raise RefusedError
    text, sender, metadata = value["body"], value.get("sender"), value.get("metadata")
    if not isinstance(text, str) or not 1 <= len(text.encode()) <= BODY_MAX_BYTES:
        raise RefusedError
    if sender is not None and (
        not isinstance(sender, str) or not 1 <= len(sender) <= NAME_MAX_CHARACTERS or sender.isspace()
    ):
        raise RefusedError
    if metadata is not None and (
        not isinstance(metadata, dict) or len(msgspec.json.encode(metadata)) > METADATA_MAX_BYTES
    ):
        raise RefusedError
    return {"body": text, "sender": sender, "metadata": metadata}


def wanted_name(body: bytes) -> str:
    """What the body of an application says, by the contract, or RefusedError."""
    value = strictly(body)
    name = value.get("name")
    if set(value) != {"name"} or not isinstance(name, str) or not 1 <= len(name) <= NAME_MAX_CHARACTERS:
        raise RefusedError
    if name.isspace():
        raise RefusedError
    return name


# JSON texts that are mostly almost right: keys twice, escapes, odd values, white space anywhere.

ESCAPES = ["\\u0000", "\\\\u0000", "\\n", '\\"', "\\\\", "\\u0061", "\\ud83d\\ude00", "\\ud83d", "\\/", "\\x", "\\"]
TEXTS = st.lists(
    st.one_of(st.sampled_from([*ESCAPES, "a", " ", "é", "😀", "{", "}", ":", ","]), st.text(max_size=3)), max_size=3
).map("".join)
STRINGS = TEXTS.map(lambda text: f'"{text}"')
SCALARS = st.one_of(
    STRINGS,
    st.sampled_from(
        ["null", "true", "1", "-0", "1.0", "1e5", "1e999", "NaN", "Infinity", "18446744073709551616", "01", "''"]
    ),
)
SPACES = st.sampled_from(["", "", "", " ", "\n", "\t\r", "\f", "\ufeff"])


def objects(keys: Any, values: Any) -> Any:
    """Texts of objects, whose keys may stand twice."""
    pairs = st.tuples(keys, SPACES, values).map(lambda pair: f"{pair[0]}{pair[1]}:{pair[1]}{pair[2]}")
    return st.tuples(st.lists(pairs, max_size=4), SPACES).map(lambda all_: "{" + f",{all_[1]}".join(all_[0]) + "}")


VALUES = st.recursive(
    SCALARS,
    lambda inner: objects(STRINGS, inner) | st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"),
    max_leaves=4,
)
KEYS = st.sampled_from(['"body"', '"body"', '"sender"', '"metadata"', '"bod\\u0079"', '"other"', '"BODY"'])
MESSAGES = st.tuples(SPACES, objects(KEYS, VALUES | STRINGS), SPACES).map("".join)


@given(MESSAGES.map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b'{"body":"x","sender":null,"sender":"y"}')
@example(b'{"body":"x","body":"y"}')
@example(b'{"sender":"x","body":"y"}')
@example(b'{"body":"a\\u0000b"}')
@example(b'{"body":"a\\\\u0000b"}')
@example(b'{"body":"\\"","body":"\\""}')
@example(b'{"body":"x","body":"\\u0022\\u0022\\u0022\\u0022"}')
@example(b'{"body":"C:\\\\ \\"x\\" \\\\"}')
@example(b'{"body":"x","metadata":{"a":1,"a":1}}')
@example(b'{"body":"x","metadata":{"a\\u0000":1}}')
@example(b'{"body":"x"} {"body":"y"}')
@example(b'{"body":"\\ud800"}')
@example(b'{"body":"\xff"}')
@example(b'{"body":"\xed\xa0\x80"}')
def test_a_message_is_taken_exactly_when_the_strict_reader_takes_it(body: bytes) -> None:
    """The short cut for plain messages lets nothing pass that reading strictly refuses, and loses nothing."""
    try:
        wanted = wanted_message(body)
    except RefusedError:
        with pytest.raises(Invalid):
            now(read(body))
    else:
        taken, _ = now(read(body))
        assert msgspec.to_builtins(taken) == wanted


ITEMS = objects(KEYS, STRINGS | SCALARS | VALUES)
BATCHES = st.lists(st.tuples(SPACES, ITEMS, SPACES).map("".join), max_size=3).map(lambda items: f"[{','.join(items)}]")
BATCH_KEYS = st.sampled_from(['"messages"', '"messages"', '"messag\\u0065s"', '"body"'])


@given(objects(BATCH_KEYS, BATCHES).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b'{"messages":[{"body":"x","body":"y"},{"body":"z"}]}')
@example(b'{"messages":[{"body":"x","sender":"a","sender":"b"},{"body":"z"}]}')
@example(b'{"messages":[{"body":"x","metadata":{},"metadata":null}]}')
@example(b'{"messages":[{"body":"x"}],"messages":[{"body":"y"}]}')
@example(b'{"messages":[{"body":"a \\"body\\": b","sender":"\\\\"},{"body":"\\""}]}')
@example(b'{"messages":[{"body":"\\"\\"","body":"x"},{"body":"\\u0022\\u0022"}]}')
@example(b'{"messages":[{"body":"y","body":"x"},{"body":"\\u0022\\u0022\\u0022\\u0022"}]}')
@example(b'{"messages":[{"body":"x"},{"body":"\\u0000"}]}')
@example(b'{"messages":[{"body":"x"},{"body":"\\\\u0000"}]}')
def test_a_batch_is_taken_exactly_when_the_strict_reader_takes_it(body: bytes) -> None:
    """All of it or nothing: what one message's text says can't hide what another's has twice."""
    try:
        wanted = wanted_batch(body)
    except RefusedError:
        with pytest.raises(Invalid):
            now(read(body, NewMessages, NEW_MESSAGES))
    else:
        taken, _ = now(read(body, NewMessages, NEW_MESSAGES))
        assert msgspec.to_builtins(taken) == wanted


@given(objects(st.sampled_from(['"name"', '"name"', '"nam\\u0065"', '"title"']), STRINGS | SCALARS))
def test_an_application_is_taken_exactly_when_the_strict_reader_takes_it(text: str) -> None:
    """The same of the other body that has a short cut."""
    body = text.encode("utf-8", "surrogatepass")
    try:
        wanted = wanted_name(body)
    except RefusedError:
        with pytest.raises(Invalid):
            now(read(body, NewApplication, NEW_APPLICATION))
    else:
        taken, _ = now(read(body, NewApplication, NEW_APPLICATION))
        assert taken.name == wanted


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"body":"a\\u0000"}', "/body"),
        (b'{"body":"x","metadata":{"a":["b","\\u0000"]}}', "/metadata/a/1"),
        (b'{"body":"x","metadata":{"a/b~":"\\u0000"}}', "/metadata/a~1b~0"),
        (b'{"body":5}', "/body"),
        (b"{}", "/body"),
        (b'{"body":"x","a/b~c":1}', "/a~1b~0c"),
        (b'{"body":"x","sender":" "}', "/sender"),
        (b'{"body":"x","metadata":[]}', "/metadata"),
    ],
)
async def test_a_fault_is_blamed_on_its_place(body: bytes, pointer: str) -> None:
    """As a JSON pointer into what was sent."""
    with pytest.raises(Invalid) as refusal:
        await read(body)
    assert [fault.pointer for fault in refusal.value.faults] == [pointer]


async def test_a_fault_in_a_batch_is_blamed_on_its_item() -> None:
    """The index of the message is part of the pointer."""
    for item, pointer in ((b'{"body":1}', "/messages/1/body"), (b"{}", "/messages/1/body"), (b"7", "/messages/1")):
        with pytest.raises(Invalid) as refusal:
            await read(b'{"messages":[{"body":"x"},%s]}' % item, NewMessages, NEW_MESSAGES)
        assert [fault.pointer for fault in refusal.value.faults] == [pointer]


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b'{"body":"x"}}', b"[" * 100_000, b'{"body":' * 5_000])
async def test_what_is_no_json_blames_no_field(body: bytes) -> None:
    """Neither an empty body nor one that is nested beyond all bounds is more than a refusal."""
    with pytest.raises(Invalid) as refusal:
        await read(body)
    assert refusal.value.faults == ()


async def test_opening_a_chat_needs_no_body() -> None:
    """An empty body is an empty object there, and nowhere else."""
    chat, _ = await read(b"", NewChat, NEW_CHAT)
    assert chat == NewChat()
    edit = msgspec.json.Decoder(ChatEdit)
    with pytest.raises(Invalid):
        await read(b"", ChatEdit, edit)


TYPES = [
    (None, True),
    ("application/json", True),
    ("application/json; charset=utf-8", True),
    ('APPLICATION/JSON;Charset="UTF-8"', True),
    ("application/merge-patch+json", True),
    ("text/json", False),
    ("text/plain", False),
    ("application/json; charset=latin-1", False),
    ("application/jsonp", False),
    ("application/x-www-form-urlencoded", False),
    ("", False),
]


@pytest.mark.parametrize(("kind", "taken"), TYPES)
async def test_the_content_type_is_json_or_absent(kind: str | None, taken: bool) -> None:
    """In UTF-8, whatever the letter case; anything else is refused unread."""
    headers = {} if kind is None else {"Content-Type": kind}
    if taken:
        await read(b'{"body":"x"}', headers=headers)
    else:
        with pytest.raises(UnsupportedMediaType):
            await read(b'{"body":"x"}', headers=headers)


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_is_capped_to_the_byte(declared: bool) -> None:
    """At the cap it is read, one byte above it is too large: by its declared length unread, else as it comes."""
    frame = b'{"body":"x"}'
    for size, fits in ((CAP_BYTES, True), (CAP_BYTES + 1, False)):
        body = frame + b" " * (size - len(frame))
        headers = {"Content-Length": str(size)} if declared else {}
        for pieces in (
            [body],
            [body[:7], body[7:]],
            [b"", *(body[start : start + 65_536] for start in range(0, size, 65_536))],
        ):
            if fits:
                message, _ = await read(b"", pieces=pieces, headers=headers)
                assert message.body == "x"
            else:
                with pytest.raises(TooLarge):
                    await read(b"", pieces=pieces, headers=headers)


async def test_a_body_may_come_in_any_pieces() -> None:
    """Cut anywhere, also through a character."""
    body = '{"body":"é😀"}'.encode()
    for cut in range(len(body) + 1):
        message, _ = await read(b"", pieces=[body[:cut], body[cut:]])
        assert message.body == "é😀"


async def test_a_client_who_leaves_is_not_answered() -> None:
    """Before the body is complete there is nothing to judge."""
    for pieces in ([b""], [b'{"body":'], [b"{", b'"body"']):
        with pytest.raises(ClientGone):
            await read(b"", pieces=pieces, gone_after_body=True)


# Idempotency


def fingerprint(body: bytes, key: str = "k", path: str = "chats/1/messages") -> Once:
    """What the web layer makes of a body and a key."""
    _, request = now(read(body, headers={"Idempotency-Key": key}))
    once: Once | None = request.once(path)
    assert once is not None
    return once


ITEMS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(-1e15, 1e15)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcdé"), inner, max_size=3),
    max_leaves=8,
)
METADATA = st.dictionaries(st.sampled_from("abcdé"), ITEMS, max_size=4)


def rewritten(value: Any, choices: random.Random) -> str:
    """Another JSON text of the same value: other order, escapes, white space, and 1.0 for 1."""
    space = choices.choice(["", " ", "\n\t"])
    if isinstance(value, dict):
        names = list(value)
        choices.shuffle(names)
        pairs = (f"{rewritten(name, choices)}{space}:{space}{rewritten(value[name], choices)}" for name in names)
        return "{" + space + f",{space}".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + f"{space},".join(rewritten(item, choices) for item in value) + space + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=choices.random() < 0.5)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return choices.choice([str(value), f"{value}.0", f"{value}.00e0"])
    return json.dumps(value)


@given(METADATA, st.integers())
def test_payloads_that_are_equal_as_json_have_one_fingerprint(metadata: dict[str, Any], seed: int) -> None:
    """Whatever the order of keys, the white space, the escapes and the way a number is written."""
    value = {"body": "x", "metadata": metadata}
    one = fingerprint(json.dumps(value).encode())
    assert fingerprint(rewritten(value, random.Random(seed)).encode()) == one


def kind_of(value: Any) -> Any:
    """A value that tells apart what JSON tells apart: true from 1, and a list from its items."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return type(value).__name__, value
    if isinstance(value, int | float):
        return "number", value
    if isinstance(value, list):
        return "list", [kind_of(item) for item in value]
    return "object", {name: kind_of(item) for name, item in value.items()}


@given(METADATA, METADATA)
@example({"a": 1}, {"a": True})
@example({"a": 0}, {"a": False})
@example({"a": "1"}, {"a": 1})
@example({"a": None}, {})
@example({"a": [1, 2]}, {"a": [2, 1]})
@example({"a": [[]]}, {"a": []})
def test_payloads_that_differ_have_different_fingerprints(one: dict[str, Any], other: dict[str, Any]) -> None:
    """True is not 1, "1" is not 1, null is not absent, and order counts in arrays."""
    same = kind_of(one) == kind_of(other)
    prints = [fingerprint(json.dumps({"body": "x", "metadata": metadata}).encode()) for metadata in (one, other)]
    assert (prints[0].fingerprint == prints[1].fingerprint) == same


def test_a_key_is_the_same_quoted_and_bare() -> None:
    """And another under another path; quotes within are part of it."""
    body = b'{"body":"x"}'
    assert fingerprint(body, '"k"') == fingerprint(body, "k")
    assert fingerprint(body, '"').key == Once.of("chats/1/messages", '"', b"").key
    assert fingerprint(body, 'a"b').key == Once.of("chats/1/messages", 'a"b', b"").key
    assert fingerprint(body, path="chats/2/messages").key != fingerprint(body).key


async def test_a_request_without_a_key_has_none() -> None:
    """Nothing is kept of it."""
    _, request = await read(b'{"body":"x"}')
    assert request.once("path") is None


@pytest.mark.parametrize("key", ["", '""', "a b", "é", "\x7f", "x" * 256, '"' + "x" * 256 + '"', "\t"])
async def test_a_key_that_is_none_is_refused(key: str) -> None:
    """1 to 255 characters from ! to ~, between quotes or bare."""
    _, request = await read(b'{"body":"x"}', headers={"Idempotency-Key": key})
    with pytest.raises(Invalid):
        request.once("path")


@pytest.mark.parametrize("key", ["!", "~", "x" * 255, '"' + "x" * 255 + '"'])
async def test_a_key_at_its_limits_is_taken(key: str) -> None:
    """One character, and 255."""
    _, request = await read(b'{"body":"x"}', headers={"Idempotency-Key": key})
    assert request.once("path") is not None


# Queries and credentials


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", {}),
        ("q=a%20b+c&limit=5", {"q": "a b c", "limit": "5"}),
        ("q=", {"q": ""}),
        ("q=%C3%A9%F0%9F%98%80", {"q": "é😀"}),
        ("q=a%26b%3Dc", {"q": "a&b=c"}),
        ("q=%00", {"q": "\0"}),
    ],
)
def test_a_query_is_percent_encoded_utf_8(query: str, wanted: dict[str, str]) -> None:
    """Each parameter once."""
    assert make_request(query=query).query == wanted


@pytest.mark.parametrize("query", ["q=%FF", "q=%ED%A0%80", "q=1&q=2", "a&a", "&".join(f"a{i}=1" for i in range(101))])
def test_a_query_that_is_ambiguous_or_no_text_is_refused(query: str) -> None:
    """Bytes that are no UTF-8, a parameter twice, and more parameters than anyone needs; it says which."""
    reason = "more than 100" if query.count("&") >= 100 else "twice" if "&" in query else "UTF-8"
    with pytest.raises(Invalid, match=reason):
        make_request(query=query).query  # noqa: B018 - reading it is the test


@pytest.mark.parametrize(
    ("header", "wanted"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", None), ("Bearer", ""), (None, None)],
)
def test_credentials_are_read_from_authorization(header: str | None, wanted: str | None) -> None:
    """Of the scheme Bearer, in any letter case."""
    assert make_request(headers={} if header is None else {"Authorization": header}).bearer() == wanted
