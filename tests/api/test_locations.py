"""`Location`: what was created is found there, and a repeat names the same place (docs/api.md, "Operations")."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client import Application, ChatAt, Client, expect

CHAT: dict[str, Any] = {"title": "Orders"}
MESSAGE: dict[str, Any] = {"body": "hello"}
KEY = {"Idempotency-Key": "k"}


async def created_twice(client: Client, path: str, payload: Any, token: str) -> list[str]:
    """The `Location` of a creation and of its repeat, each with what is created in its answer."""
    places = []
    for replayed in (None, "true"):
        response = await client.post(path, json=payload, headers=KEY | {"X-Application-Token": token})
        assert expect(response, 201).headers.get("idempotency-replayed") == replayed
        places.append(response.headers["location"])
        assert await client.get_json(places[-1]) == response.json()
    return places


@pytest.mark.parametrize("path", ["/applications/{token}/chats", "/chats/{token}"])
async def test_the_location_of_a_new_chat_leads_to_it(client: Client, application: Application, path: str) -> None:
    """By the short path, too, it is the long one; a repeat under the key names it again."""
    token = application["token"]
    for number in (1, 2):
        response = expect(await client.post(path.format(token=token), json=CHAT), 201)
        assert response.headers["location"] == f"/applications/{token}/chats/{number}"
        assert await client.get_json(response.headers["location"]) == response.json()
    places = await created_twice(client, path.format(token=token), CHAT, token)
    assert places == [f"/applications/{token}/chats/3"] * 2


@pytest.mark.parametrize("path", ["{chat.path}/messages", "/chats/{chat.number}/messages"])
async def test_the_location_of_a_new_message_leads_to_it(client: Client, chat: ChatAt, path: str) -> None:
    """By the short path, too, it is the long one; a repeat under the key names it again."""
    for number in (1, 2):
        sent = {"json": MESSAGE, "headers": {"X-Application-Token": chat.token}}
        response = expect(await client.post(path.format(chat=chat), **sent), 201)
        assert response.headers["location"] == f"{chat.path}/messages/{number}"
        assert await client.get_json(response.headers["location"]) == response.json()
    places = await created_twice(client, path.format(chat=chat), MESSAGE, chat.token)
    assert places == [f"{chat.path}/messages/3"] * 2


async def test_a_repeat_by_the_other_path_names_the_same_place(client: Client, chat: ChatAt) -> None:
    """A short path counts as the long one, in what it answers as well."""
    [place, _] = await created_twice(client, f"{chat.path}/messages", MESSAGE, chat.token)
    again = await client.post("/chats/1/messages", json=MESSAGE, headers=KEY | {"X-Application-Token": chat.token})
    assert expect(again, 201).headers["location"] == place
    [place, _] = await created_twice(client, f"/chats/{chat.token}", CHAT, chat.token)
    again = await client.post(f"/applications/{chat.token}/chats", json=CHAT, headers=KEY)
    assert expect(again, 201).headers["location"] == place


async def test_a_batch_has_no_single_place(chat: ChatAt) -> None:
    """Several were created: their numbers are in the answer."""
    response = await chat.request("POST", "/messages/batch", json={"messages": [MESSAGE]})
    assert "location" not in expect(response, 201).headers
