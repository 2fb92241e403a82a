"""The final reading: everything that an application holds, read over HTTP alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from tests.client import Client
from tests.faults.history import ApplicationReading, ChatReading, Json

PAGE = 200
SETTLE_TIMEOUT_S = 30.0
SETTLE_INTERVAL_S = 0.1


async def read_everything(
    client: Client, tokens: Iterable[str], settle_s: float = SETTLE_TIMEOUT_S
) -> dict[str, ApplicationReading]:
    """Read each application whole; one that is 404 is left out.

    Counts may lag for a moment: they get `settle_s` to become right.
    """
    there = [token for token in tokens if (await client.get(f"/applications/{token}")).status_code != 404]
    return {token: await _read_application(client, token, settle_s) for token in there}


async def _read_application(client: Client, token: str, settle_s: float) -> ApplicationReading:
    deadline = asyncio.get_running_loop().time() + settle_s
    while True:
        chats = await _pages(client, f"/applications/{token}/chats", "after", "number")
        read = [await _read_chat(client, token, chat) for chat in chats]
        reading = ApplicationReading(await client.get_json(f"/applications/{token}"), read)
        if _settled(reading) or asyncio.get_running_loop().time() > deadline:
            return reading
        await asyncio.sleep(SETTLE_INTERVAL_S)


async def _read_chat(client: Client, token: str, chat: Json) -> ChatReading:
    path = f"/applications/{token}/chats/{chat['number']}/messages"
    messages = await _pages(client, path, "after", "number")
    return ChatReading(chat, messages, await _pages(client, path, "changed_after", "revision"))


async def _pages(client: Client, path: str, cursor: str, position: str) -> list[Json]:
    """All items of a list; pages are asked for from the `position` of the last item seen."""
    items: list[Json] = []
    while True:
        last = items[-1][position] if items else 0
        page = await client.get_json(path, **{cursor: last, "limit": PAGE})
        items += page
        if len(page) < PAGE:
            return items


def _settled(reading: ApplicationReading) -> bool:
    living = [sum(row["deleted_at"] is None for row in one.messages) for one in reading.chats]
    latest = [max((row["revision"] for row in one.messages), default=0) for one in reading.chats]
    return (
        reading.application["chats_count"] == len(reading.chats)
        and [one.chat["messages_count"] for one in reading.chats] == living
        and [one.chat["revision"] for one in reading.chats] == latest
    )
