"""Erasing while the server runs: at once for every caller, and soon for what is stored. Nobody sweeps by hand."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

import httpx

from tests.api.processes import ENOUGH_CONNECTIONS, PROCESSES, all_serve, answered_by, fresh_connections
from tests.client import ChatAt, Client, expect
from tests.conftest import BuildHouse, Connect, only
from tests.faults.exposed import until
from tests.houses import EmbeddedHouse, StackHouse

MESSAGES = 30
SOON_S = 20.0
"""Far above what it takes, and far below the minute after which the sweep comes round by itself."""

PATHS = (
    "",
    "/chats",
    "/chats/1",
    "/chats/1/messages",
    "/chats/1/messages/1",
    "/chats/1/messages/search?q=says",
    "/messages/search?q=says",
    "/chats/1/events",
)
EMBEDDED_TABLES = ("applications", "chats", "messages", "search_queue", "search_behind", "receipts")
STACK_TABLES = ("chats", "messages", "receipts")


async def fill(client: Client, name: str) -> ChatAt:
    """The first of two chats of a new application, with messages and kept keys."""
    token = (await client.create_application(name))["token"]
    chats = [await client.create_chat(token, title=name) for _ in range(2)]
    for chat in chats:
        await chat.post_batch(*(f"{name} says {number}" for number in range(MESSAGES)))
        expect(await chat.request("POST", "/messages", json={"body": name}, headers={"Idempotency-Key": "k"}), 201)
        await chat.edit(1, body=f"{name} says it again")
        await chat.delete(2)
    return chats[0]


async def documents(house: StackHouse, application: int) -> int:
    """How many documents the search index holds of an application."""
    index = f"{house.storage.addresses.elasticsearch_url}/{house.storage.name}"
    async with httpx.AsyncClient(timeout=30.0, trust_env=False) as http:
        (await http.post(f"{index}/_refresh", params={"ignore_unavailable": "true"})).raise_for_status()
        query = {"query": {"terms": {"room": [f"{application}:1", f"{application}:2"]}}}
        found = await http.post(f"{index}/_count", params={"ignore_unavailable": "true"}, json=query)
        return int(found.raise_for_status().json()["count"])


async def stored(house: StackHouse, application: int) -> dict[str, int]:
    """How many rows and documents there are of an application; its own row stays for an hour."""
    counts = [f"SELECT COUNT(*) FROM {table} WHERE application_id = {application}" for table in STACK_TABLES]
    found = await asyncio.to_thread(house.storage.execute, *counts)
    rows = {table: int(count) for table, [(count,)] in zip(STACK_TABLES, found, strict=True)}
    return rows | {"documents": await documents(house, application)}


async def number_of(house: StackHouse, chat: ChatAt) -> int:
    """What MySQL calls the chat's application."""
    query = f"SELECT id FROM applications WHERE token = '{chat.token}'"
    [[(application,)]] = await asyncio.to_thread(house.storage.execute, query)
    return int(application)


async def until_stored(house: StackHouse, application: int, wanted: dict[str, int]) -> None:
    """Wait until there is exactly so much of it."""

    async def so() -> bool:
        return await stored(house, application) == wanted

    await until(so, f"of application {application} there are {wanted}")


@only("stack", because="one SQLite file has one process")
async def test_an_application_erased_through_one_process_is_gone_for_all(serve: BuildHouse, connect: Connect) -> None:
    """Each process knew the token; after one DELETE none answers it, and the streams that each held open end."""
    house = serve(processes=PROCESSES)
    chat = await fill(connect(house), "gone")
    await all_serve(house)
    base = f"/applications/{chat.token}"
    async with fresh_connections(house) as fresh, contextlib.AsyncExitStack() as stack:
        knew = {answered_by(expect(await fresh.get(chat.path), 200)) for _ in range(ENOUGH_CONNECTIONS)}
        assert len(knew) == PROCESSES
        streams = [await stack.enter_async_context(chat.follow()) for _ in range(4 * PROCESSES)]
        assert {answered_by(stream.response) for stream in streams} == knew
        expect(await fresh.delete(base), 204)
        refused_by = set()
        for number in range(ENOUGH_CONNECTIONS):
            path = base + PATHS[number % len(PATHS)]
            refused_by.add(answered_by(expect(await fresh.get(path), 404)))
            expect(await fresh.post(f"{chat.path}/messages", json={"body": "late"}), 404)
            expect(await fresh.post(f"/chats/{chat.token}"), 404)
        assert refused_by == knew
        assert await asyncio.gather(*(stream.ends() for stream in streams)) == [True] * len(streams)
        expect(await fresh.delete(base), 404)


@only("stack", because="one SQLite file has one process")
async def test_an_erased_token_is_a_guess_at_the_admin_key_in_all_processes(serve: BuildHouse) -> None:
    """401 as for any text that is no key: 403 would say that it still opens something."""
    key, guesses_per_s = "an-admin-key-of-the-tests", 1000
    house = serve(processes=PROCESSES, admin_key=key, unknown_rate_per_s=guesses_per_s)
    await all_serve(house)
    right = {"Authorization": f"Bearer {key}"}
    async with fresh_connections(house) as fresh:
        created = await fresh.post("/applications", json={"name": "gone"}, headers=right)
        token = expect(created, 201).json()["token"]
        known = {"Authorization": f"Bearer {token}"}
        for status in (403, 401):
            answers = [await fresh.get("/applications", headers=known) for _ in range(ENOUGH_CONNECTIONS)]
            assert {answer.status_code for answer in answers} == {status}
            assert len({answered_by(answer) for answer in answers}) == PROCESSES
            await fresh.delete(f"/applications/{token}", headers=right)


@only("stack", because="embedded mode has no worker")
async def test_a_worker_removes_the_rows_and_the_documents_of_what_was_erased(
    serve: BuildHouse, connect: Connect
) -> None:
    """Of that application alone: what others hold stays. A worker that starts begins with it."""
    house = serve()
    assert isinstance(house, StackHouse)
    client = connect(house)
    goes, stays = await fill(client, "goes"), await fill(client, "stays")
    going, staying = await number_of(house, goes), await number_of(house, stays)
    # Tombstones have a document, too: an older change must not bring back what was deleted.
    whole = {"chats": 2, "messages": 2 * (MESSAGES + 1), "receipts": 2, "documents": 2 * (MESSAGES + 1)}
    await until_stored(house, going, whole)
    await until_stored(house, staying, whole)
    await client.erase_application(goes.token)
    # It would come round to it within the minute.
    await asyncio.to_thread(house.restart_worker)
    await until_stored(house, going, dict.fromkeys(whole, 0))
    assert await stored(house, staying) == whole


@only("embedded", because="the stack house has a worker for it")
async def test_a_running_house_removes_the_rows_and_the_index_entries_of_what_was_erased(
    serve: BuildHouse, connect: Connect
) -> None:
    """Soon after the DELETE no table holds anything of it and the index no text; others keep theirs. Each time."""
    house = serve()
    assert isinstance(house, EmbeddedHouse)
    client = connect(house)
    stays = await fill(client, "stays")

    def held() -> dict[str, int]:
        with contextlib.closing(sqlite3.connect(f"file:{house.sqlite_path}?mode=ro", uri=True)) as tables:
            rows = {table: f"SELECT count(*) FROM {table}" for table in EMBEDDED_TABLES}
            entries = {word: f"SELECT count(*) FROM search WHERE search MATCH '{word}'" for word in ("sta", "goe")}
            return {what: tables.execute(query).fetchone()[0] for what, query in (rows | entries).items()}

    async def comes_to(wanted: dict[str, int]) -> None:
        async def so() -> bool:
            return held() == wanted

        await until(so, f"the tables hold {wanted}", SOON_S)

    one = {"applications": 1, "chats": 2, "messages": 2 * (MESSAGES + 1), "receipts": 2, "sta": 2 * MESSAGES}
    alone = one | {"search_queue": 0, "search_behind": 0, "goe": 0}
    await comes_to(alone)
    for _ in range(2):
        goes = await fill(client, "goes")
        both = {what: 2 * count for what, count in alone.items()}
        await comes_to(both | {"sta": one["sta"], "goe": one["sta"]})
        await client.erase_application(goes.token)
        await comes_to(alone)
    assert len(await stays.messages(limit=200)) == MESSAGES + 1
