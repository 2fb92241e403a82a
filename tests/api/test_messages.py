"""Messages: posting, reading, editing, deleting, and the aliases (API.md, "Operations" and "Fine print")."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.problems import expect_invalid, expect_not_found, expect_problem
from tests.api.shapes import DELICATE_TEXTS, MESSAGE_FIELDS, UNKNOWN_TOKEN, moment
from tests.client import ChatAt, Client, expect
from tests.eventually import eventually


async def test_posting_answers_201_with_exactly_the_message(chat: ChatAt) -> None:
    """The answer is the message as documented, its optional fields null."""
    response = expect(await chat.request("POST", "/messages", json={"body": "hello"}), 201)
    message = response.json()
    assert set(message) == MESSAGE_FIELDS
    assert (message["number"], message["revision"], message["body"]) == (1, 1, "hello")
    assert (message["sender"], message["metadata"], message["deleted_at"]) == (None, None, None)
    assert moment(message["created_at"]) == moment(message["updated_at"])


async def test_a_message_is_read_as_it_was_posted(chat: ChatAt) -> None:
    """Read and list return what the 201 returned, at once."""
    message = await chat.post("hello", sender="ada", metadata={"mood": "curious"})
    assert (message["sender"], message["metadata"]) == ("ada", {"mood": "curious"})
    assert await chat.message(1) == message
    assert await chat.messages() == [message]


async def test_nulls_for_optional_fields_are_accepted(chat: ChatAt) -> None:
    """Optional fields may be null in requests."""
    message = await chat.post("hello", sender=None, metadata=None)
    assert (message["sender"], message["metadata"]) == (None, None)


@pytest.mark.parametrize("text", DELICATE_TEXTS.values(), ids=DELICATE_TEXTS)
async def test_texts_are_kept_byte_for_byte(chat: ChatAt, text: str) -> None:
    """Body, sender and metadata come back as sent: posted, read, listed, edited."""
    message = await chat.post(text, sender=text, metadata={text: text})
    assert (message["body"], message["sender"], message["metadata"]) == (text, text, {text: text})
    assert await chat.message(1) == message
    assert await chat.messages() == [message]
    edited = await chat.edit(1, body="x" + text)
    assert edited["body"] == "x" + text
    assert await chat.message(1) == edited


@pytest.mark.parametrize("body", [" ", "\n", "\t \u3000"])
async def test_a_body_may_be_white_space(chat: ChatAt, body: str) -> None:
    """Only names, titles and senders must hold more than white space."""
    assert (await chat.post(body))["body"] == body


@pytest.mark.parametrize("payload", [{}, {"body": None}, {"body": 5}, {"body": ["x"]}, {"sender": "ada"}])
async def test_a_message_needs_a_body_that_is_text(chat: ChatAt, payload: dict[str, Any]) -> None:
    """A body that is missing or of another type is blamed by its pointer."""
    expect_invalid(await chat.request("POST", "/messages", json=payload), "/body")
    assert await chat.messages() == []


@pytest.mark.parametrize(
    ("field", "value"), [("sender", 5), ("sender", {}), ("metadata", []), ("metadata", "x"), ("metadata", 1)]
)
async def test_optional_fields_have_a_type_too(chat: ChatAt, field: str, value: object) -> None:
    """A sender is text and metadata an object, or they are refused."""
    expect_invalid(await chat.request("POST", "/messages", json={"body": "x", field: value}), f"/{field}")


@pytest.mark.parametrize("field", ["number", "revision", "created_at", "deleted_at", "id", "title"])
async def test_a_message_takes_no_other_field(chat: ChatAt, field: str) -> None:
    """A field that is unknown, or the server's own, is refused on posting and on editing."""
    await chat.post()
    expect_invalid(await chat.request("POST", "/messages", json={"body": "x", field: 1}), f"/{field}")
    expect_invalid(await chat.request("PATCH", "/messages/1", json={field: 1}), f"/{field}")


async def test_editing_replaces_only_what_it_names(chat: ChatAt) -> None:
    """A body alone leaves the metadata, metadata alone leaves the body; the rest never changes."""
    posted = await chat.post("old", sender="ada", metadata={"a": 1, "b": 2})
    body_changed = await chat.edit(1, body="new")
    assert (body_changed["body"], body_changed["metadata"]) == ("new", {"a": 1, "b": 2})
    metadata_changed = await chat.edit(1, metadata={"c": 3})
    assert (metadata_changed["body"], metadata_changed["metadata"]) == ("new", {"c": 3})
    for name in ("number", "sender", "created_at", "deleted_at"):
        assert metadata_changed[name] == posted[name]
    assert moment(metadata_changed["updated_at"]) >= moment(posted["updated_at"])
    assert await chat.message(1) == metadata_changed


async def test_null_clears_metadata(chat: ChatAt) -> None:
    """An edit to null leaves the message without metadata."""
    await chat.post(metadata={"a": 1})
    assert (await chat.edit(1, metadata=None))["metadata"] is None
    assert (await chat.message(1))["metadata"] is None


async def test_a_body_cannot_be_cleared(chat: ChatAt) -> None:
    """A body is not optional: null and the empty text are refused, and the message stays."""
    message = await chat.post("hello")
    expect_invalid(await chat.request("PATCH", "/messages/1", json={"body": None}), "/body")
    expect_invalid(await chat.request("PATCH", "/messages/1", json={"body": ""}), "/body")
    assert await chat.message(1) == message


async def test_a_sender_cannot_be_edited(chat: ChatAt) -> None:
    """An edit knows body and metadata only."""
    message = await chat.post(sender="ada")
    expect_invalid(await chat.request("PATCH", "/messages/1", json={"sender": "eve"}), "/sender")
    assert await chat.message(1) == message


async def test_an_empty_edit_changes_nothing(chat: ChatAt) -> None:
    """`{}` is 200 and the message stays as it was, revision and time included."""
    message = await chat.post("hello", metadata={"a": 1})
    assert await chat.edit(1) == message
    assert await chat.message(1) == message


async def test_an_edit_to_the_same_values_changes_nothing(chat: ChatAt) -> None:
    """Saying again what the message says already takes no revision and moves no time."""
    message = await chat.post("hello", metadata={"a": 1, "b": [True, None]})
    assert await chat.edit(1, body="hello", metadata={"b": [True, None], "a": 1}) == message
    assert await chat.message(1) == message


async def test_a_deleted_message_leaves_a_tombstone(chat: ChatAt) -> None:
    """Number, sender and creation time stay; body and metadata are null; the time of deletion is told."""
    posted = await chat.post("secret", sender="ada", metadata={"a": 1})
    response = await chat.request("DELETE", "/messages/1")
    assert expect(response, 204).content == b""
    tombstone = await chat.message(1)
    assert set(tombstone) == MESSAGE_FIELDS
    assert (tombstone["number"], tombstone["sender"]) == (1, "ada")
    assert (tombstone["body"], tombstone["metadata"]) == (None, None)
    assert tombstone["created_at"] == posted["created_at"]
    assert moment(tombstone["deleted_at"]) >= moment(posted["created_at"])
    assert tombstone["revision"] == 2
    assert await chat.messages() == [tombstone]


async def test_deleting_again_changes_nothing(chat: ChatAt) -> None:
    """The second DELETE is 204 as well, and the tombstone stays exactly as it was."""
    await chat.post()
    await chat.delete(1)
    tombstone = await chat.message(1)
    await chat.delete(1)
    assert await chat.message(1) == tombstone


@pytest.mark.parametrize("fields", [{"body": "again"}, {"metadata": {"a": 1}}, {"metadata": None}])
async def test_a_tombstone_cannot_be_edited(chat: ChatAt, fields: dict[str, Any]) -> None:
    """Editing what was deleted is 409 `conflict`, and the tombstone stays."""
    await chat.post()
    await chat.delete(1)
    tombstone = await chat.message(1)
    expect_problem(await chat.request("PATCH", "/messages/1", json=fields), 409, "conflict")
    assert await chat.message(1) == tombstone


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_a_message_that_was_never_posted_is_404(chat: ChatAt, method: str) -> None:
    """Above the last number there is nothing to read, edit or delete."""
    await chat.post()
    expect_not_found(await chat.request(method, "/messages/2", json={"body": "x"}))


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_a_message_is_neither_put_nor_posted_to(chat: ChatAt, method: str) -> None:
    """The contract knows GET, PATCH and DELETE for a message; anything else is 405."""
    await chat.post()
    expect_problem(await chat.request(method, "/messages/1", json={"body": "x"}), 405, "method_not_allowed")


async def test_a_message_may_be_posted_the_moment_its_chat_was_answered(client: Client) -> None:
    """Read your writes: application, chat and message one right after the other, many times over."""
    for _ in range(20):
        application = await client.create_application()
        chat = await client.create_chat(application["token"])
        message = await chat.post()
        assert await chat.messages() == [message]


async def test_every_change_is_seen_by_the_next_read_on_any_connection(chat: ChatAt, client: Client) -> None:
    """After 201, 200 and 204, reads over other connections show the change at once."""
    async with Client(client.url) as elsewhere:
        there = ChatAt(elsewhere, chat.token, chat.number)
        for number in range(1, 11):
            posted = await chat.post(f"message {number}")
            assert await there.message(number) == posted
            edited = await chat.edit(number, body=f"edited {number}")
            assert (await there.messages(after=number - 1)) == [edited]
            await chat.delete(number)
            assert (await there.message(number))["deleted_at"] is not None


def alias_credentials(token: str) -> list[dict[str, Any]]:
    """The three ways in which an alias takes its application's token."""
    return [
        {"headers": {"Authorization": f"Bearer {token}"}},
        {"headers": {"X-Application-Token": token}},
        {"params": {"token": token}},
    ]


async def test_the_message_alias_takes_its_token_in_three_ways(client: Client, chat: ChatAt) -> None:
    """POST /chats/{number}/messages posts into the chat of the application that the token names."""
    for number, credentials in enumerate(alias_credentials(chat.token), start=1):
        response = await client.post("/chats/1/messages", json={"body": f"m{number}"}, **credentials)
        posted = expect(response, 201).json()
        assert set(posted) == MESSAGE_FIELDS
        assert posted["number"] == number
        assert await chat.message(number) == posted


async def test_the_search_alias_takes_its_token_in_three_ways(client: Client, chat: ChatAt) -> None:
    """GET /chats/{number}/messages/search?q= searches the chat of the application that the token names."""
    message = await chat.post("needle")
    await eventually(lambda: chat.search("needle"), [message])
    for credentials in alias_credentials(chat.token):
        params = {"q": "needle"} | credentials.pop("params", {})
        response = await client.get("/chats/1/messages/search", params=params, **credentials)
        assert expect(response, 200).json() == [message]


@pytest.mark.parametrize(("method", "path"), [("POST", "/chats/1/messages"), ("GET", "/chats/1/messages/search?q=x")])
async def test_an_alias_without_a_token_is_400_and_says_so(client: Client, method: str, path: str) -> None:
    """The detail names the ways to give a token."""
    problem = expect_invalid(await client.request(method, path, json={"body": "x"}))
    assert "token" in problem["detail"].lower()


@pytest.mark.parametrize(("method", "path"), [("POST", "/chats/1/messages"), ("GET", "/chats/1/messages/search?q=x")])
async def test_an_alias_with_an_unknown_token_is_404(client: Client, method: str, path: str) -> None:
    """An unknown token is 404 everywhere; 401 is for the admin key."""
    for credentials in alias_credentials(UNKNOWN_TOKEN):
        params = dict(part.split("=") for part in path.partition("?")[2].split("&") if part)
        params |= credentials.pop("params", {})
        response = await client.request(
            method, path.partition("?")[0], json={"body": "x"}, params=params, **credentials
        )
        expect_not_found(response)


async def test_of_several_tokens_on_an_alias_the_first_counts(client: Client, chat: ChatAt, other_chat: ChatAt) -> None:
    """Authorization comes before X-Application-Token, and that before ?token=."""
    bearer = {"Authorization": f"Bearer {chat.token}"}
    header, other_header = ({"X-Application-Token": each.token} for each in (chat, other_chat))
    query, other_query = ({"token": each.token} for each in (chat, other_chat))
    for headers, params in [
        (bearer | other_header, other_query),
        (bearer | other_header, {}),
        (bearer, other_query),
        (header, other_query),
    ]:
        expect(await client.post("/chats/1/messages", json={"body": "x"}, headers=headers, params=params), 201)
    assert len(await chat.messages()) == 4
    assert await other_chat.messages() == []
    unknown = {"Authorization": f"Bearer {UNKNOWN_TOKEN}"}
    expect_not_found(await client.post("/chats/1/messages", json={"body": "x"}, headers=unknown, params=query))


async def test_an_alias_finds_only_chats_of_its_own_application(
    client: Client, chat: ChatAt, other_chat: ChatAt
) -> None:
    """A chat number that only another application has is 404."""
    await client.create_chat(other_chat.token)
    response = await client.post("/chats/2/messages", json={"body": "x"}, params={"token": chat.token})
    expect_not_found(response)
