"""Promises 1, 2, 5 and 7 across a crash: the process is killed without warning and started again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.api.links import pages
from tests.client import ChatAt, Client, Fields, expect
from tests.conftest import Connect, running_house
from tests.eventually import eventually
from tests.houses import House


@pytest.fixture(scope="module")
def mortal(house_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The house that dies here again and again."""
    with running_house(house_name, tmp_path_factory.mktemp("mortal")) as own:
        yield own


@pytest.fixture
def house(mortal: House) -> House:
    """The mortal house in place of the shared one, and alive again whatever the last test did to it."""
    if not mortal.running:
        mortal.start()
    return mortal


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that other tasks of the test bring about."""

    async def holds() -> bool:
        return condition()

    await eventually(holds, True)


async def snapshot(client: Client, token: str) -> dict[str, Any]:
    """Everything that one application holds, as its readers see it; counts apart, which may lag."""
    application = dict(await client.read_application(token))
    chats = [dict(chat) for page in await pages(client, f"/applications/{token}/chats") for chat in page]
    messages = {}
    for chat in chats:
        path = f"/applications/{token}/chats/{chat['number']}/messages"
        messages[chat["number"]] = [each for page in await pages(client, path, limit=200) for each in page]
        messages[-chat["number"]] = await client.get_json(path, changed_after=0, limit=200)
        del chat["messages_count"], chat["revision"]
    del application["chats_count"]
    return {"application": application, "chats": chats, "messages": messages}


async def test_everything_acknowledged_survives_a_crash(house: House, connect: Connect) -> None:
    """Applications, chats, messages, edits, deletions and renames; and numbers go on without a gap."""
    client = connect(house)
    token = (await client.create_application("First name"))["token"]
    gone = (await client.create_application("Erased"))["token"]
    chat = await client.create_chat(token, title="Old", metadata={"a": 1})
    await client.create_chat(token)
    await chat.post("one", sender="ada", metadata={"n": 1})
    await chat.post_batch("two", "three", "four")
    await chat.edit(2, body="edited", metadata={"e": True})
    await chat.delete(3)
    expect(await chat.request("PATCH", json={"title": "New", "metadata": None}), 200)
    expect(await client.request("PATCH", f"/applications/{token}", json={"name": "Second name"}), 200)
    await client.erase_application(gone)
    before = await snapshot(client, token)
    house.restart()
    assert await snapshot(client, token) == before
    assert (await client.get(f"/applications/{gone}")).status_code == 404
    message = await chat.post("five")
    assert (message["number"], message["revision"]) == (5, 7)
    assert (await client.create_chat(token)).number == 3


async def test_the_very_last_acknowledgement_survives_a_crash(house: House, connect: Connect) -> None:
    """Killed the moment the answer arrived, the server still has it, whatever was acknowledged."""
    client = connect(house)
    chat = await client.create_chat((await client.create_application())["token"])
    house.restart()
    posted = await chat.post()
    house.restart()
    assert await chat.message(1) == posted
    await chat.delete(1)
    house.restart()
    state = await chat.message(1)
    assert (state["body"], state["revision"]) == (None, 2)


async def test_a_crash_under_load_loses_nothing_and_leaves_no_gap(house: House, connect: Connect) -> None:
    """Every 201 is there with its number and body; what was unanswered is there whole or not at all."""
    client = connect(house)
    chat = await client.create_chat((await client.create_application())["token"])
    acknowledged: dict[int, str] = {}

    async def send_until_it_ends(sender: str) -> None:
        for index in range(100_000):
            body = f"{sender}-{index}"
            try:
                response = await chat.request("POST", "/messages", json={"body": body})
            except httpx.TransportError:
                return
            acknowledged[expect(response, 201).json()["number"]] = body

    for life in range(2):
        senders = [asyncio.create_task(send_until_it_ends(f"{life}-{sender}")) for sender in range(16)]
        target = len(acknowledged) + 150
        await until(lambda target=target: len(acknowledged) >= target)  # type: ignore[misc]
        house.kill()
        await asyncio.gather(*senders)
        house.start()
        stored = [each for page in await pages(client, f"{chat.path}/messages", limit=200) for each in page]
        assert [each["number"] for each in stored] == list(range(1, len(stored) + 1))
        assert [each["revision"] for each in stored] == [each["number"] for each in stored]
        bodies = {each["number"]: each["body"] for each in stored}
        assert acknowledged.items() <= bodies.items()
        assert len(set(bodies.values())) == len(bodies)


async def test_batches_under_way_at_a_crash_are_whole_or_absent(house: House, connect: Connect) -> None:
    """After the crash no batch is there in part."""
    client = connect(house)
    chat = await client.create_chat((await client.create_application())["token"])
    answered = 0

    async def send_until_it_ends(sender: int) -> None:
        nonlocal answered
        for index in range(100_000):
            try:
                await chat.post_batch(*(f"{sender}-{index}" for _ in range(20)))
            except httpx.TransportError:
                return
            answered += 1

    senders = [asyncio.create_task(send_until_it_ends(sender)) for sender in range(6)]
    await until(lambda: answered >= 30)
    house.kill()
    await asyncio.gather(*senders)
    house.start()
    stored = [each["body"] for page in await pages(client, f"{chat.path}/messages", limit=200) for each in page]
    assert len(stored) >= answered * 20
    assert len(stored) % 20 == 0
    for start in range(0, len(stored), 20):
        assert len(set(stored[start : start + 20])) == 1


async def test_idempotent_replays_survive_a_crash(house: House, connect: Connect) -> None:
    """Every kind of key repeats its first answer, and still refuses another payload."""
    client = connect(house)
    token = (await client.create_application())["token"]
    headers = {"Idempotency-Key": f"k-{token}"}
    chats, messages = f"/applications/{token}/chats", f"/applications/{token}/chats/1/messages"
    requests: list[tuple[str, Fields, tuple[str, ...]]] = [
        ("/applications", {"name": "Once"}, ("token", "name", "created_at")),
        (chats, {"title": "Once"}, ("number", "title", "created_at")),
        (messages, {"body": "once", "metadata": {"a": 1}}, ("number", "body", "metadata", "created_at")),
        (f"{messages}/batch", {"messages": [{"body": "a"}, {"body": "b"}]}, ("number", "body", "created_at")),
    ]
    firsts = [
        expect(await client.post(path, json=payload, headers=headers), 201).json() for path, payload, _ in requests
    ]
    house.restart()
    for (path, payload, names), first in zip(requests, firsts, strict=True):
        response = expect(await client.post(path, json=payload, headers=headers), 201)
        assert response.headers["idempotency-replayed"] == "true"
        for again, once in zip(_as_list(response.json()), _as_list(first), strict=True):
            assert {name: again[name] for name in names} == {name: once[name] for name in names}
        other = await client.post(path, json={**payload, "unknown": 1}, headers=headers)
        assert other.status_code in (400, 422)
    mismatch = await client.post(messages, json={"body": "other"}, headers=headers)
    assert mismatch.status_code == 422
    assert (await ChatAt(client, token, 1).post())["number"] == 4


def _as_list(answer: Any) -> list[Any]:
    return answer if isinstance(answer, list) else [answer]


async def test_a_retry_after_a_crash_acts_once(house: House, connect: Connect) -> None:
    """Keys whose answer never arrived are sent again: whatever happened before, each message exists once."""
    client = connect(house)
    chat = await client.create_chat((await client.create_application())["token"])

    async def send(index: int) -> int | None:
        headers = {"Idempotency-Key": f"k{index}"}
        try:
            response = await chat.request("POST", "/messages", json={"body": f"{index}"}, headers=headers)
        except httpx.TransportError:
            return None
        number: int = expect(response, 201).json()["number"]
        return number

    first_round = [asyncio.create_task(send(index)) for index in range(200)]
    await until(lambda: sum(task.done() for task in first_round) >= 60)
    house.kill()
    before = await asyncio.gather(*first_round)
    house.start()
    after = await asyncio.gather(*(send(index) for index in range(200)))
    assert sorted(number for number in after if number is not None) == list(range(1, 201))
    assert all(was in (None, now) for was, now in zip(before, after, strict=True))


async def test_search_and_counts_catch_up_after_a_crash(house: House, connect: Connect) -> None:
    """What was not indexed or counted yet when the process was killed is so soon after it is back."""
    client = connect(house)
    token = (await client.create_application())["token"]
    chat = await client.create_chat(token)
    posted = await chat.post_batch(*(f"needle {index}" for index in range(100)))
    await chat.delete(1)
    edited = await chat.edit(2, body="hay")
    house.kill()
    house.start()
    await eventually(lambda: chat.search("needle", limit=200), posted[:1:-1])
    await eventually(lambda: chat.search("hay"), [edited])

    async def counts() -> tuple[int, int, int]:
        state = await chat.read()
        return (
            state["messages_count"],
            state["revision"],
            (await client.read_application(token))["chats_count"],
        )

    await eventually(counts, (99, 102, 1))


async def test_a_reader_resumes_across_a_crash(house: House, connect: Connect) -> None:
    """The stream breaks with the process; with the last id nothing is missed and nothing comes twice."""
    client = connect(house)
    chat = await client.create_chat((await client.create_application())["token"])
    async with chat.follow() as stream:
        await chat.post_batch("one", "two")
        assert [event.revision for event in await stream.events(2)] == [1, 2]
        house.kill()
        assert await stream.ends()
    house.start()
    await chat.post("three")
    async with chat.follow(last_event_id=2) as stream:
        await chat.post("four")
        assert [event.revision for event in await stream.events(2)] == [3, 4]
        assert await stream.is_silent()


async def test_an_orderly_stop_answers_what_is_under_way_and_ends(house: House, connect: Connect) -> None:
    """SIGTERM while many post: all that was acknowledged is there, and nothing has a gap."""
    client = connect(house)
    chat = await client.create_chat((await client.create_application())["token"])
    acknowledged: list[int] = []

    async def send_until_it_ends() -> None:
        while True:
            try:
                response = await chat.request("POST", "/messages", json={"body": "x"})
            except httpx.TransportError:
                return
            if response.status_code == 503:
                return
            acknowledged.append(expect(response, 201).json()["number"])

    senders = [asyncio.create_task(send_until_it_ends()) for _ in range(8)]
    await until(lambda: len(acknowledged) >= 50)
    assert await asyncio.to_thread(house.stop) == 0
    await asyncio.gather(*senders)
    house.start()
    stored = [each["number"] for page in await pages(client, f"{chat.path}/messages", limit=200) for each in page]
    assert stored == list(range(1, len(stored) + 1))
    assert set(acknowledged) <= set(stored)


async def test_an_open_stream_does_not_hold_up_an_orderly_stop(house: House, connect: Connect) -> None:
    """Readers are told by the end of their stream; the process does not wait for them to leave."""
    client = connect(house)
    chat = await client.create_chat((await client.create_application())["token"])
    async with chat.follow() as stream:
        assert await asyncio.to_thread(house.stop) == 0
        assert await stream.ends()
