"""The domain: limits at n and n + 1, times, folding, metadata, and what identifies a request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_system import model
from chat_system.errors import Invalid
from chat_system.model import (
    ApplicationEdit,
    ChatEdit,
    Message,
    MessageEdit,
    NewApplication,
    NewChat,
    NewMessage,
    NewMessages,
    Once,
    check_body,
    encode_metadata,
    fold,
    milliseconds,
    raw,
    rfc3339,
)
from chat_system.system import check_query

YEAR_1 = -62_135_596_800_000
YEAR_9999_END = 253_402_300_799_999
TIMES = st.integers(YEAR_1, YEAR_9999_END)


def accepts(kind: type[msgspec.Struct], value: object) -> bool:
    """Whether a JSON value decodes into the struct and passes its check."""
    try:
        decoded: Any = msgspec.json.decode(msgspec.json.encode(value), type=kind)
        decoded.check()
    except (Invalid, msgspec.ValidationError):
        return False
    return True


NAMED = [
    (NewApplication, "name", {}),
    (ApplicationEdit, "name", {}),
    (NewChat, "title", {}),
    (ChatEdit, "title", {}),
    (NewMessage, "sender", {"body": "x"}),
]


@pytest.mark.parametrize(("kind", "field", "others"), NAMED)
def test_names_titles_and_senders_have_1_to_255_characters_and_not_only_white_space(
    kind: type[msgspec.Struct], field: str, others: dict[str, str]
) -> None:
    """Characters are counted, not bytes; what is around them is kept; blank in any script is blank."""
    for text in ("x", "x" * 255, "😀" * 255, " x ", "\u200b", "\t.\n"):
        assert accepts(kind, {**others, field: text}), text[:5]
    for text in ("", "x" * 256, "😀" * 256, " ", "\t\r\n", "\u00a0", "\u2003\u3000", " " * 255):
        assert not accepts(kind, {**others, field: text}), text[:5]


@pytest.mark.parametrize("character", ["x", "é", "中", "😀"])
@pytest.mark.parametrize("kind", [NewMessage, MessageEdit])
def test_a_body_has_1_character_to_64_kib_of_utf_8(kind: type[msgspec.Struct], character: str) -> None:
    """Bytes are counted, whatever the characters; white space alone is a body."""
    most = model.BODY_MAX_BYTES // len(character.encode())
    rest = "x" * (model.BODY_MAX_BYTES % len(character.encode()))
    assert accepts(kind, {"body": character})
    assert accepts(kind, {"body": character * most + rest})
    assert not accepts(kind, {"body": character * most + rest + "x"})
    assert not accepts(kind, {"body": character * (most + 1)})
    assert not accepts(kind, {"body": ""})
    assert accepts(kind, {"body": " "})


def test_a_fault_of_a_body_names_its_place() -> None:
    """In a batch, the item too."""
    with pytest.raises(Invalid) as refusal:
        NewMessages([NewMessage("x"), NewMessage("x" * (model.BODY_MAX_BYTES + 1))]).check()
    assert [fault.pointer for fault in refusal.value.faults] == ["/messages/1/body"]
    with pytest.raises(Invalid) as refusal:
        check_body("/body", "é" * model.BODY_MAX_BYTES)
    assert [fault.pointer for fault in refusal.value.faults] == ["/body"]


MISSHAPEN: list[object] = [[], "x", 1, True]


@pytest.mark.parametrize("kind", [NewChat, ChatEdit, NewMessage, MessageEdit])
def test_metadata_has_4_kib_of_compact_json(kind: type[msgspec.Struct]) -> None:
    """Measured as it is stored: without white space, in UTF-8 and not in escapes."""
    others = {"body": "x"} if kind is NewMessage else {}
    frame = len(b'{"k":""}')
    for character in ("x", "é", "😀"):
        most = (model.METADATA_MAX_BYTES - frame) // len(character.encode())
        assert accepts(kind, {**others, "metadata": {"k": character * most}})
        assert not accepts(kind, {**others, "metadata": {"k": character * (most + 1)}})
    for metadata in MISSHAPEN:
        assert not accepts(kind, {**others, "metadata": metadata})
    assert accepts(kind, {**others, "metadata": None})
    assert accepts(kind, {**others, "metadata": {}})


def test_metadata_is_measured_to_the_byte() -> None:
    """4096 bytes pass and 4097 don't, and the encoding is what was measured."""
    fits = {"k": "x" * (4096 - 8)}
    encoded = encode_metadata(fits)
    assert encoded is not None
    assert len(encoded) == 4096
    with pytest.raises(Invalid):
        encode_metadata({"k": "x" * (4096 - 7)})
    assert encode_metadata(None) is None
    assert encode_metadata({"é": [1, {"n": None}]}) == '{"é":[1,{"n":null}]}'.encode()


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0, 1.5, -0.0, 1e308, True])
def test_numbers_that_a_64_bit_word_holds_are_metadata(number: float) -> None:
    """They come back as they were sent, wherever they stand."""
    for metadata in ({"n": number}, {"n": [{"deep": [number]}]}):
        encoded = encode_metadata(metadata)
        assert encoded is not None
        assert msgspec.json.decode(encoded) == metadata


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**400, -(10**400)])
def test_integers_out_of_range_are_no_metadata(number: int) -> None:
    """At any depth."""
    for metadata in ({"n": number}, {"n": [{"deep": [number]}]}):
        with pytest.raises(Invalid) as refusal:
            encode_metadata(metadata, "/messages/7/metadata")
        assert [fault.pointer for fault in refusal.value.faults] == ["/messages/7/metadata"]


def test_metadata_that_is_nested_too_deeply_is_refused() -> None:
    """It is a refusal and never a crash."""
    nested: dict[str, Any] = {}
    for _ in range(100_000):
        nested = {"n": nested}
    with pytest.raises(Invalid):
        encode_metadata(nested)
    # Taken apart by hand: the interpreter itself is not made for such depths either.
    while nested:
        nested = nested.pop("n")


def test_a_batch_has_1_to_500_messages() -> None:
    """Neither none nor 501, and every one of them is checked."""
    message = {"body": "x"}
    assert accepts(NewMessages, {"messages": [message]})
    assert accepts(NewMessages, {"messages": [message] * 500})
    assert not accepts(NewMessages, {"messages": []})
    assert not accepts(NewMessages, {"messages": [message] * 501})
    assert not accepts(NewMessages, {"messages": [message] * 499 + [{"body": "x", "sender": " "}]})


def test_a_query_has_1_to_256_characters() -> None:
    """Characters are counted; U+0000, which no body can contain, is refused; white space is a query."""
    for query in ("x", "😀" * 256, " ", "%"):
        assert check_query(query) == query
    for query in ("", "x" * 257, "a\0b"):
        with pytest.raises(Invalid) as refusal:
            check_query(query)
        assert [fault.pointer for fault in refusal.value.faults] == ["?q"]


def test_unknown_fields_are_refused_everywhere() -> None:
    """A misspelt field must not be silently nothing."""
    for kind in (NewApplication, ApplicationEdit, NewChat, ChatEdit, NewMessage, NewMessages, MessageEdit):
        whole = {"name": "x", "body": "x", "messages": [{"body": "x"}]}
        fields = {name: whole[name] for name in whole if name in kind.__struct_fields__}
        assert accepts(kind, fields)
        assert not accepts(kind, {**fields, "nmae": "x"}), kind


@given(TIMES)
def test_times_survive_both_ways(at: int) -> None:
    """From milliseconds to text and back, over all years that the text can say."""
    assert milliseconds(rfc3339(at)) == at


@given(TIMES)
def test_times_are_what_the_calendar_says(at: int) -> None:
    """The text is that moment, in UTC, with milliseconds."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at)
    assert rfc3339(at) == moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@given(TIMES, TIMES)
def test_texts_of_times_sort_as_the_times_do(one: int, other: int) -> None:
    """So that whoever compares them as text is right."""
    assert (rfc3339(one) < rfc3339(other)) == (one < other)


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (-1000, "1969-12-31T23:59:59.000Z"),
        (951_782_400_007, "2000-02-29T00:00:00.007Z"),
        (YEAR_1, "0001-01-01T00:00:00.000Z"),
        (YEAR_9999_END, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_at_the_edges(at: int, text: str) -> None:
    """Before 1970, leap days, and the first and last that can be said."""
    assert rfc3339(at) == text
    assert milliseconds(text) == at


def test_times_of_other_zones_are_the_same_moments() -> None:
    """An offset is taken into account, also across the turn of a year; finer than milliseconds is cut off."""
    assert milliseconds("2026-01-01T01:30:00+02:00") == milliseconds("2025-12-31T23:30:00Z")
    assert milliseconds("2026-01-01T00:00:00.123999Z") == milliseconds("2026-01-01T00:00:00.123Z")
    assert milliseconds("1969-12-31T23:59:59.9999Z") == -1


@pytest.mark.parametrize(
    "text",
    ["2026-01-01T00:00:00", "2026-01-01", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "yesterday", ""],
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    """A time without its offset, one outside the years 1 to 9999 of UTC, and no time at all."""
    with pytest.raises(ValueError, match=r"^.+$"):
        milliseconds(text)


@given(st.text())
def test_folding_is_pythons_own(text: str) -> None:
    """Search means what casefold means, and nothing that is folded folds further."""
    assert fold(text) == text.casefold() == fold(fold(text))


PATHS = st.sampled_from(["applications", "chats", "chats/1/messages", "chats/11/messages", "chats/1/messages/batch"])
KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8)


@given(st.tuples(PATHS, KEYS, st.binary(max_size=4)), st.tuples(PATHS, KEYS, st.binary(max_size=4)))
def test_requests_are_the_same_when_path_and_key_are(
    one: tuple[str, str, bytes], other: tuple[str, str, bytes]
) -> None:
    """The key names the request, the fingerprint its payload; no two requests share either."""
    first, second = Once.of(*one), Once.of(*other)
    assert (first.key == second.key) == (one[:2] == other[:2])
    assert (first.fingerprint == second.fingerprint) == (one[2] == other[2])


def test_no_idempotency_key_is_kept_in_the_clear() -> None:
    """What is stored tells neither the key nor the payload, and says how long it is kept."""
    once = Once.of("chats", "a-secret-key", b"a secret payload")
    assert b"secret" not in once.key + once.fingerprint
    assert once.kept_s == 24 * 3600
    assert Once.of("chats", "key", b"", kept_s=None).kept_s is None


def test_an_edit_tells_absent_from_null() -> None:
    """A field that is named is replaced, also by null; one that is not named is left."""
    edit = msgspec.json.decode(b'{"metadata":null}', type=ChatEdit)
    assert edit.metadata is None
    assert edit.title is msgspec.UNSET
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"body":null}', type=MessageEdit)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"name":null}', type=ApplicationEdit)


def test_a_message_leaves_the_system_with_every_field() -> None:
    """What has no value is null, and stored metadata goes out as it was stored."""
    message = Message(1, None, "x", raw(b'{"n":1.50}'), 2, rfc3339(0), rfc3339(1))
    assert msgspec.json.encode(message) == (
        b'{"number":1,"sender":null,"body":"x","metadata":{"n":1.50},"revision":2,'
        b'"created_at":"1970-01-01T00:00:00.000Z","updated_at":"1970-01-01T00:00:00.001Z","deleted_at":null}'
    )
    assert raw(None) is None
