"""Chats: creating, reading, changing, their counts, and the alias (API.md, "Resources", "Operations")."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.problems import expect_invalid, expect_not_found, expect_problem
from tests.api.shapes import CHAT_FIELDS, DELICATE_TEXTS, UNKNOWN_TOKEN, moment
from tests.client import Application, ChatAt, Client, expect
from tests.eventually import eventually

EMPTY_BODIES: dict[str, dict[str, Any]] = {
    "nothing at all": {},
    "an empty json body": {"content": b"", "headers": {"Content-Type": "application/json"}},
    "an empty object": {"json": {}},
    "only nulls": {"json": {"title": None, "metadata": None}},
}

METADATA: dict[str, dict[str, Any]] = {
    "empty": {},
    "nested": {"a": {"b": [1, 2.5, "x", None, True, {"c": []}]}},
    "text": {"ключ": "e\u0301 😀 \u2028", "": ""},
    "integers": {"max": 2**53, "min": -(2**53), "zero": 0},
    "long integers": {"max": 2**63 - 1, "min": -(2**63)},
}


@pytest.mark.parametrize("options", EMPTY_BODIES.values(), ids=EMPTY_BODIES)
async def test_a_chat_needs_no_fields(client: Client, application: Application, options: dict[str, Any]) -> None:
    """An empty body creates a chat whose optional fields are null."""
    response = expect(await client.post(f"/applications/{application['token']}/chats", **options), 201)
    assert set(response.json()) == CHAT_FIELDS
    chat = response.json()
    assert (chat["number"], chat["title"], chat["metadata"]) == (1, None, None)
    assert (chat["messages_count"], chat["revision"]) == (0, 0)
    assert moment(chat["created_at"]) == moment(chat["updated_at"])


async def test_a_chat_is_read_as_it_was_created(client: Client, application: Application) -> None:
    """Title and metadata come back, in the answer and in a later read."""
    fields = {"title": "Order 66", "metadata": {"priority": 1}}
    response = expect(await client.post(f"/applications/{application['token']}/chats", json=fields), 201)
    assert {name: response.json()[name] for name in fields} == fields
    assert await client.get_json(f"/applications/{application['token']}/chats/1") == response.json()


async def test_chats_are_numbered_from_one_in_each_application(client: Client, other_chat: ChatAt) -> None:
    """Each application counts its own chats: 1, 2, 3."""
    token = (await client.create_application())["token"]
    assert [(await client.create_chat(token)).number for _ in range(3)] == [1, 2, 3]
    assert (await client.create_chat(other_chat.token)).number == 2


async def test_the_alias_creates_a_chat_in_the_same_sequence(client: Client, application: Application) -> None:
    """POST /chats/{token} stands for POST /applications/{token}/chats."""
    await client.create_chat(application["token"])
    response = expect(await client.post(f"/chats/{application['token']}", json={"title": "By alias"}), 201)
    assert set(response.json()) == CHAT_FIELDS
    assert response.json()["number"] == 2
    assert await client.get_json(f"/applications/{application['token']}/chats/2") == response.json()
    expect(await client.post(f"/chats/{application['token']}"), 201)


async def test_the_alias_of_an_unknown_token_is_404(client: Client) -> None:
    """An unknown token is 404 everywhere, aliases included."""
    expect_not_found(await client.post(f"/chats/{UNKNOWN_TOKEN}", json={}))


@pytest.mark.parametrize("title", DELICATE_TEXTS.values(), ids=DELICATE_TEXTS)
async def test_a_title_is_kept_byte_for_byte(client: Client, application: Application, title: str) -> None:
    """No trimming, no normalising, whether created or changed."""
    chat = await client.create_chat(application["token"], title=title)
    assert (await chat.read())["title"] == title
    expect(await chat.request("PATCH", json={"title": "x" + title}), 200)
    assert (await chat.read())["title"] == "x" + title


@pytest.mark.parametrize("metadata", METADATA.values(), ids=METADATA)
async def test_metadata_comes_back_equal(client: Client, application: Application, metadata: Any) -> None:
    """Any JSON object is kept, its numbers exact."""
    chat = await client.create_chat(application["token"], metadata=metadata)
    assert (await chat.read())["metadata"] == metadata


async def test_a_patch_replaces_only_what_it_names(client: Client, application: Application) -> None:
    """A title leaves the metadata, metadata leaves the title, and metadata is replaced as a whole."""
    chat = await client.create_chat(application["token"], title="Old", metadata={"a": 1, "b": 2})
    created = await chat.read()
    titled = expect(await chat.request("PATCH", json={"title": "New"}), 200).json()
    assert (titled["title"], titled["metadata"]) == ("New", {"a": 1, "b": 2})
    marked = expect(await chat.request("PATCH", json={"metadata": {"c": 3}}), 200).json()
    assert (marked["title"], marked["metadata"]) == ("New", {"c": 3})
    assert marked["created_at"] == created["created_at"]
    assert moment(marked["updated_at"]) >= moment(created["updated_at"])
    assert await chat.read() == marked


async def test_null_clears_a_title_and_metadata(client: Client, application: Application) -> None:
    """Optional fields may be null in requests, and are then without value."""
    chat = await client.create_chat(application["token"], title="Old", metadata={"a": 1})
    cleared = expect(await chat.request("PATCH", json={"title": None, "metadata": None}), 200).json()
    assert (cleared["title"], cleared["metadata"]) == (None, None)
    assert await chat.read() == cleared


async def test_an_empty_patch_changes_nothing(client: Client, application: Application) -> None:
    """`{}` is 200 and leaves even the time of the update."""
    chat = await client.create_chat(application["token"], title="Old")
    before = await chat.read()
    assert expect(await chat.request("PATCH", json={}), 200).json() == before
    assert await chat.read() == before


@pytest.mark.parametrize("metadata", [[], "x", 1, True, [{}]])
async def test_metadata_must_be_an_object(client: Client, chat: ChatAt, metadata: object) -> None:
    """Any other JSON type is refused, on creating and on changing."""
    created = await client.post(f"/applications/{chat.token}/chats", json={"metadata": metadata})
    expect_invalid(created, "/metadata")
    expect_invalid(await chat.request("PATCH", json={"metadata": metadata}), "/metadata")


@pytest.mark.parametrize("title", [5, True, [], {}])
async def test_a_title_must_be_text(client: Client, chat: ChatAt, title: object) -> None:
    """Any other JSON type is refused, on creating and on changing."""
    created = await client.post(f"/applications/{chat.token}/chats", json={"title": title})
    expect_invalid(created, "/title")
    expect_invalid(await chat.request("PATCH", json={"title": title}), "/title")


@pytest.mark.parametrize("field", ["number", "messages_count", "revision", "created_at", "id", "name"])
async def test_a_chat_takes_no_other_field(client: Client, chat: ChatAt, field: str) -> None:
    """A field that is unknown, or the server's own, is refused and nothing is created."""
    created = await client.post(f"/applications/{chat.token}/chats", json={field: 1})
    expect_invalid(created, f"/{field}")
    expect_invalid(await chat.request("PATCH", json={field: 1}), f"/{field}")
    assert len(await client.list_chats(chat.token)) == 1


async def test_messages_count_leaves_out_tombstones(chat: ChatAt) -> None:
    """The count becomes the number of messages that are not deleted."""
    await chat.post_batch("one", "two", "three")

    async def count() -> int:
        return (await chat.read())["messages_count"]

    await eventually(count, 3)
    await chat.delete(2)
    await eventually(count, 2)
    await chat.delete(2)
    await chat.edit(1, body="edited")
    await chat.post("four")
    await eventually(count, 3)


async def test_a_chat_revision_becomes_that_of_its_latest_change(chat: ChatAt) -> None:
    """The chat's own revision follows its messages, deletions included."""
    await chat.post_batch("one", "two")
    await chat.edit(1, body="edited")
    await chat.delete(2)

    async def revision() -> int:
        return (await chat.read())["revision"]

    await eventually(revision, 4)


async def test_the_list_of_chats_shows_the_same_counts_as_the_chat(client: Client, chat: ChatAt) -> None:
    """List and read agree once the counts have caught up."""
    await chat.post()

    async def listed() -> tuple[int, int]:
        (only,) = await client.list_chats(chat.token)
        return only["messages_count"], only["revision"]

    await eventually(listed, (1, 1))
    assert await client.list_chats(chat.token) == [await chat.read()]


async def test_an_unknown_chat_is_404(client: Client, chat: ChatAt) -> None:
    """Reading, changing, posting to, searching and following a chat that does not exist."""
    missing = ChatAt(client, chat.token, 2)
    for method, below in [
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
    ]:
        expect_not_found(await missing.request(method, below))


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
async def test_a_chat_is_never_put_deleted_or_posted_to_itself(chat: ChatAt, method: str) -> None:
    """The contract knows GET and PATCH for a chat; anything else is 405."""
    expect_problem(await chat.request(method, json={}), 405, "method_not_allowed")
