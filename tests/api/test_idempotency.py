"""Promise 5: a repeat with the same Idempotency-Key returns the first answer, and never acts twice."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.api.problems import expect_invalid, expect_not_found, expect_problem
from tests.client import Application, ChatAt, Client, Fields, expect

KEPT_OF_A_MESSAGE = ("number", "body", "sender", "metadata", "created_at")
KEPT_OF_A_CHAT = ("number", "title", "metadata", "created_at")


async def post_once(chat: ChatAt, key: str, payload: Any, below: str = "/messages") -> httpx.Response:
    """Post with a key, any status."""
    return await chat.request("POST", below, json=payload, headers={"Idempotency-Key": key})


def expect_first(response: httpx.Response) -> Any:
    """A 201 that acted."""
    assert "idempotency-replayed" not in expect(response, 201).headers
    return response.json()


def expect_replayed(response: httpx.Response) -> Any:
    """A 201 that repeated an earlier one."""
    assert expect(response, 201).headers.get("idempotency-replayed") == "true"
    return response.json()


def expect_mismatch(response: httpx.Response) -> None:
    """The refusal of a key that was used with another payload."""
    expect_problem(response, 422, "idempotency_mismatch")


def chosen(resource: Fields, names: tuple[str, ...]) -> Fields:
    """Some fields of a resource."""
    return {name: resource[name] for name in names}


async def test_a_repeated_message_is_answered_again_and_stored_once(chat: ChatAt) -> None:
    """The same key and payload: the same answer, told apart by its header, and one message."""
    payload = {"body": "hello", "sender": "ada", "metadata": {"a": [1]}}
    first = expect_first(await post_once(chat, "k", payload))
    for _ in range(3):
        assert chosen(expect_replayed(await post_once(chat, "k", payload)), KEPT_OF_A_MESSAGE) == chosen(
            first, KEPT_OF_A_MESSAGE
        )
    assert await chat.messages() == [first]
    assert (await chat.post())["number"] == 2


async def test_a_repeated_application_is_created_once(client: Client) -> None:
    """POST /applications answers again with the same token and Location."""
    headers = {"Idempotency-Key": f"application-{id(client)}-{asyncio.get_running_loop().time()}"}
    first = await client.post("/applications", json={"name": "Once"}, headers=headers)
    again = await client.post("/applications", json={"name": "Once"}, headers=headers)
    kept = ("token", "name", "created_at")
    assert chosen(expect_replayed(again), kept) == chosen(expect_first(first), kept)
    assert again.headers["location"] == first.headers["location"]
    expect_mismatch(await client.post("/applications", json={"name": "Twice"}, headers=headers))


@pytest.mark.parametrize("payload", [{}, {"title": "Once", "metadata": {"a": 1}}])
async def test_a_repeated_chat_is_created_once(client: Client, application: Application, payload: Fields) -> None:
    """Chats replay like messages, also when their body says nothing."""
    path = f"/applications/{application['token']}/chats"
    headers = {"Idempotency-Key": "k"}
    first = expect_first(await client.post(path, json=payload, headers=headers))
    again = expect_replayed(await client.post(path, json=payload, headers=headers))
    assert chosen(again, KEPT_OF_A_CHAT) == chosen(first, KEPT_OF_A_CHAT)
    expect_mismatch(await client.post(path, json={"title": "Other"}, headers=headers))
    assert len(await client.list_chats(application["token"])) == 1


async def test_a_repeated_batch_is_stored_once(chat: ChatAt) -> None:
    """A batch replays as a whole, with all its numbers, wherever the chat stands by then."""
    payload = {"messages": [{"body": "a"}, {"body": "b", "sender": "ada"}, {"body": "c", "metadata": {"n": 1}}]}
    await chat.post("before")
    first = expect_first(await post_once(chat, "k", payload, "/messages/batch"))
    await chat.post("after")
    again = expect_replayed(await post_once(chat, "k", payload, "/messages/batch"))
    assert [chosen(each, KEPT_OF_A_MESSAGE) for each in again] == [chosen(each, KEPT_OF_A_MESSAGE) for each in first]
    assert [each["number"] for each in again] == [2, 3, 4]
    assert len(await chat.messages()) == 5
    payload["messages"].reverse()
    expect_mismatch(await post_once(chat, "k", payload, "/messages/batch"))


async def test_simultaneous_repeats_act_once(chat: ChatAt) -> None:
    """The later ones wait for the first: one acts, the others replay it."""
    for round_number in range(1, 6):
        answers = await asyncio.gather(*(post_once(chat, f"k{round_number}", {"body": "x"}) for _ in range(30)))
        replayed = [answer for answer in answers if "idempotency-replayed" in expect(answer, 201).headers]
        assert len(replayed) == 29
        assert {answer.json()["number"] for answer in answers} == {round_number}
    assert len(await chat.messages()) == 5


async def test_simultaneous_repeats_with_different_payloads_act_once(chat: ChatAt) -> None:
    """One payload wins; its repeats replay and all the others are 422."""
    answers = await asyncio.gather(*(post_once(chat, "k", {"body": f"{n % 3}"}) for n in range(30)))
    bodies = {answer.json()["body"] for answer in answers if answer.status_code == 201}
    assert len(bodies) == 1
    assert sorted(answer.status_code for answer in answers) == [201] * 10 + [422] * 20
    assert [message["body"] for message in await chat.messages()] == list(bodies)


async def test_simultaneous_repeats_of_an_application_and_a_chat_act_once(
    client: Client, application: Application
) -> None:
    """What holds for messages holds for every POST that creates."""
    unique = f"application-{application['token']}"
    for path, payload, identity in [
        ("/applications", {"name": "Once"}, "token"),
        (f"/applications/{application['token']}/chats", {"title": "Once"}, "number"),
    ]:
        headers = {"Idempotency-Key": unique}
        answers = await asyncio.gather(*(client.post(path, json=payload, headers=headers) for _ in range(10)))
        assert len({expect(answer, 201).json()[identity] for answer in answers}) == 1
        assert sum("idempotency-replayed" in answer.headers for answer in answers) == 9


async def test_quoted_and_bare_are_one_key(chat: ChatAt) -> None:
    """`"k"` and `k` are the same key, in either order."""
    expect_first(await post_once(chat, '"k"', {"body": "x"}))
    expect_replayed(await post_once(chat, "k", {"body": "x"}))
    expect_first(await post_once(chat, "other", {"body": "x"}))
    expect_replayed(await post_once(chat, '"other"', {"body": "x"}))
    assert len(await chat.messages()) == 2


async def test_keys_are_told_apart_exactly(chat: ChatAt) -> None:
    """Case, punctuation and length count."""
    for key in ("k", "K", "k.", "kk", "!~", "k/1?x=y", "1", "01"):
        expect_first(await post_once(chat, key, {"body": "x"}))


EQUAL_AS_JSON: dict[str, bytes] = {
    "other order": b'{"metadata": {"b": [1, "\xc3\xa9"], "a": {"y": 2, "x": null}}, "body": "caf\xc3\xa9/"}',
    "white space": b'\n{ "body" :"caf\xc3\xa9/" , "metadata":{"a":{"x":null,"y":2},"b":[1,"\xc3\xa9"]}}\t',
    "escapes": rb'{"b\u006fdy": "caf\u00e9\/", "metadata": {"a": {"x": null, "y": 2}, "b": [1, "\u00E9"]}}',
}


@pytest.mark.parametrize("content", EQUAL_AS_JSON.values(), ids=EQUAL_AS_JSON)
async def test_payloads_that_are_equal_as_json_are_the_same(chat: ChatAt, content: bytes) -> None:
    """Order of members, white space and escapes do not make another payload."""
    payload = {"body": "café/", "metadata": {"a": {"x": None, "y": 2}, "b": [1, "é"]}}
    first = expect_first(await post_once(chat, "k", payload))
    again = await chat.request("POST", "/messages", content=content, headers={"Idempotency-Key": "k"})
    assert expect_replayed(again)["number"] == first["number"]


DIFFERENT_AS_JSON: dict[str, tuple[Any, Any]] = {
    "true is not 1": (True, 1),
    "false is not 0": (False, 0),
    "null is not absent": (None, ...),
    "a number is not its text": (1, "1"),
    "order of an array": ([1, 2], [2, 1]),
    "an empty array is not an empty object": ([], {}),
    "composed is not decomposed": ("\u00e9", "e\u0301"),
    "close integers": (2**53, 2**53 + 1),
}


@pytest.mark.parametrize(("one", "other"), DIFFERENT_AS_JSON.values(), ids=DIFFERENT_AS_JSON)
async def test_payloads_that_differ_as_json_are_refused(chat: ChatAt, one: object, other: object) -> None:
    """The same key with another payload is 422, and nothing is stored for it."""
    payloads = [{"body": "x", "metadata": {} if value is ... else {"v": value}} for value in (one, other)]
    expect_first(await post_once(chat, "k", payloads[0]))
    expect_mismatch(await post_once(chat, "k", payloads[1]))
    expect_replayed(await post_once(chat, "k", payloads[0]))
    assert (await chat.post())["number"] == 2


@pytest.mark.parametrize("other", [{"body": "y"}, {"body": "x", "sender": "ada"}, {"body": "x "}])
async def test_another_body_or_sender_is_another_payload(chat: ChatAt, other: Fields) -> None:
    """A difference anywhere in the payload counts."""
    expect_first(await post_once(chat, "k", {"body": "x"}))
    expect_mismatch(await post_once(chat, "k", other))


async def test_the_answer_repeats_the_payload_as_first_posted(chat: ChatAt) -> None:
    """What happened to the message since does not show: edited, then deleted, it replays as it was posted."""
    payload = {"body": "first", "sender": "ada", "metadata": {"a": 1}}
    first = expect_first(await post_once(chat, "k", payload))
    await chat.edit(1, body="second", metadata=None)
    assert chosen(expect_replayed(await post_once(chat, "k", payload)), KEPT_OF_A_MESSAGE) == chosen(
        first, KEPT_OF_A_MESSAGE
    )
    await chat.delete(1)
    again = expect_replayed(await post_once(chat, "k", payload))
    assert chosen(again, KEPT_OF_A_MESSAGE) == chosen(first, KEPT_OF_A_MESSAGE)
    assert (await chat.message(1))["body"] is None


async def test_a_changed_chat_and_a_renamed_application_replay_as_first_posted(client: Client) -> None:
    """Title, metadata and name are repeated as they were posted."""
    key = {"Idempotency-Key": f"rename-{asyncio.get_running_loop().time()}"}
    application = expect_first(await client.post("/applications", json={"name": "First"}, headers=key))
    path = f"/applications/{application['token']}"
    first = expect_first(await client.post(f"{path}/chats", json={"title": "First"}, headers=key))
    await client.request("PATCH", path, json={"name": "Second"})
    await client.request("PATCH", f"{path}/chats/1", json={"title": "Second", "metadata": {"a": 1}})
    again = expect_replayed(await client.post(f"{path}/chats", json={"title": "First"}, headers=key))
    assert chosen(again, KEPT_OF_A_CHAT) == chosen(first, KEPT_OF_A_CHAT)
    renamed = expect_replayed(await client.post("/applications", json={"name": "First"}, headers=key))
    assert (renamed["token"], renamed["name"]) == (application["token"], "First")


async def test_a_refusal_is_not_kept(chat: ChatAt) -> None:
    """After a 4xx the key is as good as new, for any payload."""
    for refused in ({"body": ""}, {"colour": "red"}, {}):
        expect_invalid(await post_once(chat, "k", refused))
    expect_first(await post_once(chat, "k", {"body": "x"}))
    expect_replayed(await post_once(chat, "k", {"body": "x"}))


async def test_a_404_is_not_kept(client: Client, application: Application) -> None:
    """A key that was refused because the chat was missing works once the chat is there."""
    chat = ChatAt(client, application["token"], 1)
    expect_not_found(await post_once(chat, "k", {"body": "x"}))
    await client.create_chat(application["token"])
    expect_first(await post_once(chat, "k", {"body": "x"}))


async def test_a_mismatch_takes_nothing_from_the_first(chat: ChatAt) -> None:
    """A 422 neither consumes a number nor replaces the payload that the key stands for."""
    expect_first(await post_once(chat, "k", {"body": "x"}))
    for _ in range(3):
        expect_mismatch(await post_once(chat, "k", {"body": "y"}))
    assert expect_replayed(await post_once(chat, "k", {"body": "x"}))["number"] == 1
    assert (await chat.post())["number"] == 2


async def test_a_key_belongs_to_one_path(client: Client, chat: ChatAt) -> None:
    """Another chat, the batch and the creation of a chat each know their own keys."""
    second = await client.create_chat(chat.token)
    expect_first(await post_once(chat, "k", {"body": "x"}))
    expect_first(await post_once(second, "k", {"body": "other"}))
    expect_first(await post_once(chat, "k", {"messages": [{"body": "x"}]}, "/messages/batch"))
    headers = {"Idempotency-Key": "k"}
    expect_first(await client.post(f"/applications/{chat.token}/chats", json={}, headers=headers))


async def test_a_key_belongs_to_one_application(chat: ChatAt, other_chat: ChatAt) -> None:
    """The same key on the same numbers of another application is a stranger."""
    expect_first(await post_once(chat, "k", {"body": "x"}))
    expect_first(await post_once(other_chat, "k", {"body": "y"}))


async def test_an_alias_counts_as_the_path_it_stands_for(client: Client, chat: ChatAt) -> None:
    """A message posted by path replays by alias, however the token is given, and the other way round."""
    headers = {"Idempotency-Key": "k"}
    first = expect_first(await post_once(chat, "k", {"body": "x"}))
    for credentials in ({"X-Application-Token": chat.token}, {"Authorization": f"Bearer {chat.token}"}):
        response = await client.post("/chats/1/messages", json={"body": "x"}, headers=headers | credentials)
        assert expect_replayed(response)["number"] == first["number"]
    query = {"token": chat.token}
    expect_mismatch(await client.post("/chats/1/messages", json={"body": "y"}, headers=headers, params=query))
    created = expect_first(await client.post(f"/chats/{chat.token}", json={}, headers=headers))
    again = await client.post(f"/applications/{chat.token}/chats", json={}, headers=headers)
    assert expect_replayed(again)["number"] == created["number"]


async def test_a_replay_is_no_change(chat: ChatAt) -> None:
    """A repeat takes no revision and sends no event."""
    expect_first(await post_once(chat, "k", {"body": "x"}))
    async with chat.follow() as stream:
        expect_replayed(await post_once(chat, "k", {"body": "x"}))
        assert await stream.is_silent()
    assert (await chat.post())["revision"] == 2


async def test_an_erased_application_replays_nothing(client: Client, chat: ChatAt) -> None:
    """Afterwards it is 404, for repeats too."""
    expect_first(await post_once(chat, "k", {"body": "x"}))
    await client.erase_application(chat.token)
    expect_not_found(await post_once(chat, "k", {"body": "x"}))


@pytest.mark.parametrize("key", ["!", "~", "k" * 255, '"' + "k" * 255 + '"', 'a"b', "\\"])
async def test_a_key_of_1_to_255_printable_characters_is_accepted(chat: ChatAt, key: str) -> None:
    """From `!` to `~`, quotes around it not counted."""
    expect_first(await post_once(chat, key, {"body": "x"}))
    expect_replayed(await post_once(chat, key, {"body": "x"}))


@pytest.mark.parametrize("key", ["", '""', "k" * 256, '"' + "k" * 256 + '"', "a b", '"a b"', "a\tb", "ké"])
async def test_any_other_key_is_400(chat: ChatAt, key: str) -> None:
    """Empty, too long, blank inside, not ASCII: refused, and nothing is stored."""
    headers = [(b"Idempotency-Key", key.encode())]
    expect_invalid(await chat.request("POST", "/messages", json={"body": "x"}, headers=headers))
    assert await chat.messages() == []


@pytest.mark.parametrize("path", ["/applications", "/applications/{token}/chats", "/chats/{token}"])
async def test_every_creating_path_judges_its_key(client: Client, application: Application, path: str) -> None:
    """A key that is too long is refused wherever one is taken."""
    target = path.format(token=application["token"])
    response = await client.post(target, json={"name": "x"}, headers={"Idempotency-Key": "k" * 256})
    expect_invalid(response)
    assert await client.list_chats(application["token"]) == []
