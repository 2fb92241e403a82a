"""Batches: all or none, consecutive numbers (API.md, "Operations", promise 1)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.api.problems import expect_invalid
from tests.api.shapes import MESSAGE_FIELDS
from tests.client import ChatAt, expect


async def test_a_batch_answers_201_with_its_messages_in_order(chat: ChatAt) -> None:
    """Each item becomes a message with all its fields, numbered and revised consecutively."""
    items = [
        {"body": "a", "sender": "ada"},
        {"body": "b", "metadata": {"n": 2}},
        {"body": "c", "sender": None},
    ]
    messages = expect(await chat.request("POST", "/messages/batch", json={"messages": items}), 201).json()
    assert all(set(message) == MESSAGE_FIELDS for message in messages)
    assert [message["body"] for message in messages] == ["a", "b", "c"]
    assert [message["sender"] for message in messages] == ["ada", None, None]
    assert [message["metadata"] for message in messages] == [None, {"n": 2}, None]
    assert [message["number"] for message in messages] == [1, 2, 3]
    assert [message["revision"] for message in messages] == [1, 2, 3]
    assert await chat.messages() == messages


async def test_a_batch_continues_the_chat_and_is_continued(chat: ChatAt) -> None:
    """Single messages and batches share one sequence."""
    await chat.post("one")
    assert [message["number"] for message in await chat.post_batch("two", "three")] == [2, 3]
    assert (await chat.post("four"))["number"] == 4


BAD_ITEMS: dict[str, tuple[Any, str]] = {
    "no body": ({}, "/messages/1/body"),
    "an empty body": ({"body": ""}, "/messages/1/body"),
    "a body that is no text": ({"body": 5}, "/messages/1/body"),
    "a NUL": ({"body": "a\x00b"}, "/messages/1/body"),
    "a blank sender": ({"body": "x", "sender": " "}, "/messages/1/sender"),
    "metadata that is no object": ({"body": "x", "metadata": []}, "/messages/1/metadata"),
    "an unknown field": ({"body": "x", "number": 9}, "/messages/1/number"),
    "no object": ("x", "/messages/1"),
    "null": (None, "/messages/1"),
}


@pytest.mark.parametrize(("item", "pointer"), BAD_ITEMS.values(), ids=BAD_ITEMS)
async def test_one_bad_item_refuses_the_whole_batch(chat: ChatAt, item: object, pointer: str) -> None:
    """Nothing is stored, no number is consumed, and the pointer blames the item."""
    batch = {"messages": [{"body": "good"}, item, {"body": "good"}]}
    expect_invalid(await chat.request("POST", "/messages/batch", json=batch), pointer)
    assert await chat.messages() == []
    assert (await chat.post())["number"] == 1


@pytest.mark.parametrize("payload", [{}, {"messages": None}, {"messages": {}}, {"messages": "x"}])
async def test_a_batch_needs_an_array_of_messages(chat: ChatAt, payload: dict[str, Any]) -> None:
    """Anything but an array is blamed as such."""
    expect_invalid(await chat.request("POST", "/messages/batch", json=payload), "/messages")


async def test_a_batch_takes_no_other_field(chat: ChatAt) -> None:
    """An unknown field beside `messages` is refused."""
    payload = {"messages": [{"body": "x"}], "atomic": True}
    expect_invalid(await chat.request("POST", "/messages/batch", json=payload), "/atomic")


async def test_a_bare_array_is_no_batch(chat: ChatAt) -> None:
    """The batch is an object with `messages`."""
    expect_invalid(await chat.request("POST", "/messages/batch", json=[{"body": "x"}]))


async def test_simultaneous_batches_and_messages_never_interleave(chat: ChatAt) -> None:
    """However many run at once, each batch is consecutive and all numbers together are 1 to n."""
    batches = [chat.post_batch(*(f"b{index}-{item}" for item in range(7))) for index in range(20)]
    singles = [chat.post(f"single {index}") for index in range(40)]
    batched, single = await asyncio.gather(asyncio.gather(*batches), asyncio.gather(*singles))
    numbers = []
    for messages in [*batched, *([message] for message in single)]:
        first = messages[0]["number"]
        assert [message["number"] for message in messages] == list(range(first, first + len(messages)))
        numbers += [message["number"] for message in messages]
    assert sorted(numbers) == list(range(1, 20 * 7 + 40 + 1))


async def test_a_batch_is_seen_whole_or_not_at_all(chat: ChatAt) -> None:
    """A reader who looks while batches arrive sees only whole ones."""
    done = asyncio.Event()
    seen: set[int] = set()

    async def look() -> None:
        while not done.is_set():
            seen.add(len(await chat.messages(limit=200)))

    looking = asyncio.gather(look(), look())
    for index in range(15):
        await chat.post_batch(*(f"{index}-{item}" for item in range(10)))
    done.set()
    await looking
    assert [length for length in seen if length % 10] == []
    # Whoever saw nothing, or only the end, has not looked while they arrived.
    assert len(seen - {0, 150}) >= 2
