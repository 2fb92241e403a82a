"""Promise 8: a token opens its own application only, and another's things look like nothing at all."""

from __future__ import annotations

import pytest

from tests.api.problems import expect_not_found
from tests.api.shapes import UNKNOWN_TOKEN
from tests.client import ChatAt, Client
from tests.eventually import eventually

BELOW_A_CHAT = [
    ("GET", ""),
    ("PATCH", ""),
    ("GET", "/messages"),
    ("POST", "/messages"),
    ("POST", "/messages/batch"),
    ("GET", "/messages/1"),
    ("PATCH", "/messages/1"),
    ("DELETE", "/messages/1"),
    ("GET", "/messages/search?q=x"),
    ("GET", "/events"),
]


@pytest.mark.parametrize(("method", "below"), BELOW_A_CHAT)
async def test_the_chat_of_another_is_the_same_404_as_no_chat(
    client: Client, chat: ChatAt, other_chat: ChatAt, method: str, below: str
) -> None:
    """Whether the number exists elsewhere cannot be told from the answer."""
    await client.create_chat(other_chat.token)
    await ChatAt(client, other_chat.token, 2).post("theirs")
    of_another = expect_not_found(await ChatAt(client, chat.token, 2).request(method, below, json={"body": "x"}))
    of_nobody = expect_not_found(await ChatAt(client, chat.token, 99).request(method, below, json={"body": "x"}))
    for member in ("type", "title", "status", "code"):
        assert of_another[member] == of_nobody[member]
    assert of_another["detail"].replace("2", "n") == of_nobody["detail"].replace("99", "n")


@pytest.mark.parametrize(("method", "below"), BELOW_A_CHAT)
async def test_what_does_not_exist_is_404_before_its_body_is_judged(
    client: Client, chat: ChatAt, method: str, below: str
) -> None:
    """A malformed body says nothing about an application or a chat that is not there."""
    malformed = {"content": b"{not json", "headers": {"Content-Type": "application/json"}}
    expect_not_found(await ChatAt(client, UNKNOWN_TOKEN, 1).request(method, below, **malformed))
    expect_not_found(await ChatAt(client, chat.token, 2).request(method, below, **malformed))


async def test_a_message_that_does_not_exist_is_404_before_its_body_is_judged(chat: ChatAt) -> None:
    """An edit of nothing is 404, whatever it says."""
    expect_not_found(await chat.request("PATCH", "/messages/1", json={"unknown": 1}))
    expect_not_found(await chat.request("PATCH", "/messages/1", content=b"{"))


async def test_a_search_never_leaves_its_application(client: Client, chat: ChatAt, other_chat: ChatAt) -> None:
    """The same words in two applications are found in each by its own token only."""
    ours, theirs = await chat.post("the same words"), await other_chat.post("the same words")
    await eventually(lambda: chat.search("same"), [ours])
    await eventually(lambda: client.search(chat.token, "same"), [{**ours, "chat_number": 1}])
    await eventually(lambda: client.search(other_chat.token, "same"), [{**theirs, "chat_number": 1}])


async def test_a_search_in_a_chat_never_leaves_it(client: Client, chat: ChatAt) -> None:
    """The same words in two chats of one application are found in each chat once."""
    second = await client.create_chat(chat.token)
    first_message, second_message = await chat.post("the same words"), await second.post("the same words")
    await eventually(lambda: chat.search("same"), [first_message])
    await eventually(lambda: second.search("same"), [second_message])


async def test_a_change_in_one_chat_touches_no_other(client: Client, chat: ChatAt, other_chat: ChatAt) -> None:
    """Numbers and revisions of chats with the same number in two applications are strangers."""
    sibling = await client.create_chat(chat.token)
    await chat.post_batch("a", "b", "c")
    for stranger in (sibling, other_chat):
        message = await stranger.post("x")
        assert (message["number"], message["revision"]) == (1, 1)
        assert await stranger.messages() == [message]
