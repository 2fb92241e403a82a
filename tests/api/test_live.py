"""Promise 7: live changes over server-sent events, resumable, nothing missed and nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random

import pytest

from tests.api.problems import expect_invalid, expect_not_found
from tests.api.shapes import DELICATE_TEXTS
from tests.client import ChatAt, Client, Message, expect
from tests.houses import House
from tests.live_stream import Event, LiveStream
from tests.raw_http import RawConnection, connection, head

KEEP_ALIVE_WAIT_S = 25.0
BATCH_MESSAGES, FLOOD_BATCHES, LONG_PAST_BATCHES = 12, 18, 6


async def test_changes_arrive_as_events_with_the_message_and_its_revision(chat: ChatAt) -> None:
    """Created, updated, deleted: each with the message as it is read at that moment, its id the revision."""
    async with chat.follow() as stream:
        posted = await chat.post("hello", sender="ada", metadata={"a": 1})
        assert await stream.next_event() == Event("message.created", "1", dict(posted))
        edited = await chat.edit(1, body="edited")
        assert await stream.next_event() == Event("message.updated", "2", dict(edited))
        await chat.delete(1)
        tombstone = await chat.message(1)
        assert await stream.next_event() == Event("message.deleted", "3", dict(tombstone))
        assert await stream.is_silent()


async def test_a_batch_arrives_as_one_event_for_each_message(chat: ChatAt) -> None:
    """In the order of their numbers."""
    async with chat.follow() as stream:
        posted = await chat.post_batch("a", "b", "c")
        assert [event.message for event in await stream.events(3)] == posted


@pytest.mark.parametrize("text", DELICATE_TEXTS.values(), ids=DELICATE_TEXTS)
async def test_events_carry_texts_unharmed(chat: ChatAt, text: str) -> None:
    """Line ends and separators inside a message do not break the stream's lines."""
    async with chat.follow() as stream:
        posted = await chat.post(text, sender=text, metadata={text: text})
        assert (await stream.next_event()).message == posted


async def test_a_stream_begins_with_the_next_change(chat: ChatAt) -> None:
    """Without a cursor the past is not told; what comes after the stream's 200 is."""
    await chat.post_batch("past", "past")
    async with chat.follow() as stream:
        posted = await chat.post("present")
        assert (await stream.next_event()).message == posted


async def test_after_0_replays_all(chat: ChatAt) -> None:
    """From the beginning: one event for each message, ordered by revision, then the live changes."""
    await chat.post_batch("one", "two", "three")
    await chat.edit(1, body="edited")
    async with chat.follow(after=0) as stream:
        replayed = await stream.events(3)
        assert [event.message for event in replayed] == await chat.messages(changed_after=0)
        posted = await chat.post()
        assert (await stream.next_event()).message == posted
        assert await stream.is_silent()


async def test_what_changed_several_times_while_away_comes_once_in_its_latest_state(chat: ChatAt) -> None:
    """Deleted for a tombstone, created if never edited, else updated."""
    await chat.post_batch("stays", "is edited", "is deleted", "is edited and deleted")
    for text in ("once", "twice"):
        await chat.edit(2, body=text)
        await chat.edit(4, body=text)
    await chat.delete(3)
    await chat.delete(4)
    async with chat.follow(after=0) as stream:
        replayed = await stream.events(4)
        assert [(event.name, event.message["number"], event.revision) for event in replayed] == [
            ("message.created", 1, 1),
            ("message.updated", 2, 7),
            ("message.deleted", 3, 9),
            ("message.deleted", 4, 10),
        ]
        assert [event.message for event in replayed] == await chat.messages(changed_after=0)
        assert await stream.is_silent()


@pytest.mark.parametrize("by", ["after", "last_event_id"])
async def test_a_reader_resumes_where_it_left(chat: ChatAt, by: str) -> None:
    """By header or by parameter: exactly the changes above the cursor."""
    await chat.post_batch("one", "two", "three", "four")
    async with chat.follow(**{by: 2}) as stream:
        assert [event.revision for event in await stream.events(2)] == [3, 4]
        await chat.post("five")
        assert (await stream.next_event()).revision == 5
        assert await stream.is_silent()


async def test_the_header_wins_over_the_parameter(chat: ChatAt) -> None:
    """A browser that reconnects repeats the URL with its old `after`, and adds the header."""
    await chat.post_batch("one", "two", "three")
    async with chat.follow(after=0, last_event_id=2) as stream:
        assert [event.revision for event in await stream.events(1)] == [3]
        assert await stream.is_silent()
    async with chat.follow(after=2, last_event_id=0) as stream:
        assert [event.revision for event in await stream.events(3)] == [1, 2, 3]


async def test_a_cursor_at_the_end_or_beyond_simply_waits(chat: ChatAt) -> None:
    """There is nothing to send, and that is no error."""
    await chat.post()
    for cursor in (1, 2, 10**9):
        async with chat.follow(after=cursor) as stream:
            assert await stream.is_silent()
    async with chat.follow(last_event_id=1) as stream:
        posted = await chat.post()
        assert (await stream.next_event()).message == posted


@pytest.mark.parametrize("value", ["abc", "-1", "1.5", "1e3", "0x1"])
async def test_an_ill_formed_cursor_is_400(chat: ChatAt, value: str) -> None:
    """Header or parameter, also when the other one would do."""
    expect_invalid(await chat.request("GET", "/events", params={"after": value}), "?after")
    expect_invalid(await chat.request("GET", "/events", headers={"Last-Event-ID": value}))
    expect_invalid(await chat.request("GET", "/events", params={"after": "0"}, headers={"Last-Event-ID": value}))


async def test_a_stream_of_nothing_is_404(client: Client, chat: ChatAt, other_chat: ChatAt) -> None:
    """No chat, or another application's."""
    await client.create_chat(other_chat.token)
    expect_not_found(await client.get(f"/applications/{chat.token}/chats/2/events"))
    expect_not_found(await client.get(f"/applications/{chat.token}/chats/9/events", params={"after": "x"}))


async def test_a_stream_is_not_to_be_cached(chat: ChatAt) -> None:
    """Its headers keep intermediaries from storing it."""
    async with chat.follow() as stream:
        assert stream.response.headers["cache-control"] in ("no-cache", "no-store")


async def test_head_of_a_stream_ends_at_once(chat: ChatAt) -> None:
    """HEAD works where GET does, and does not wait for changes."""
    response = await asyncio.wait_for(chat.request("HEAD", "/events"), timeout=10)
    assert expect(response, 200).headers["content-type"].split(";")[0] == "text/event-stream"
    assert response.content == b""


async def test_other_chats_send_nothing_here(client: Client, chat: ChatAt, other_chat: ChatAt) -> None:
    """A stream carries its own chat's changes only."""
    sibling = await client.create_chat(chat.token)
    async with chat.follow(after=0) as stream:
        await sibling.post("elsewhere")
        await other_chat.post("elsewhere")
        await chat.request("PATCH", json={"title": "New"})
        assert await stream.is_silent()


async def test_every_reader_sees_every_change_in_the_same_order(chat: ChatAt) -> None:
    """Thirty readers of one chat, while several write to it."""
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(chat.follow()) for _ in range(30)]
        await asyncio.gather(*(chat.post(f"message {index}") for index in range(50)))
        seen = await asyncio.gather(*(stream.events_until(50) for stream in streams))
    assert [event.revision for event in seen[0]] == list(range(1, 51))
    assert all(each == seen[0] for each in seen)


async def test_an_event_can_be_read_back_at_once(chat: ChatAt) -> None:
    """Who was woken finds what it was woken for, over another connection."""
    async with Client(chat.client.url) as elsewhere, chat.follow() as stream:
        there = ChatAt(elsewhere, chat.token, chat.number)
        for index in range(1, 21):
            await chat.post(f"message {index}")
            event = await stream.next_event()
            assert await there.message(index) == event.message


async def test_an_old_snapshot_plus_the_events_equals_a_fresh_snapshot(chat: ChatAt) -> None:
    """Under writes, edits and deletions, with a reader that hangs up again and again and resumes."""
    rng = random.Random(7)
    await chat.post_batch(*(f"message {index}" for index in range(10)))
    copy: dict[int, Message] = {message["number"]: message for message in await chat.messages()}
    cursor = max(message["revision"] for message in copy.values())
    writing = asyncio.gather(*(_change_at_random(chat, random.Random(writer)) for writer in range(4)))
    while not writing.done():
        async with chat.follow(last_event_id=cursor) as stream:
            cursor = await _apply_some(stream, copy, cursor, rng.randint(1, 12))
    await writing
    fresh = await chat.messages(limit=200)
    latest = max(message["revision"] for message in fresh)
    async with chat.follow(after=cursor) as stream:
        while cursor < latest:
            cursor = await _apply_some(stream, copy, cursor, 1)
        assert await stream.is_silent()
    assert [copy[number] for number in sorted(copy)] == fresh


async def _apply_some(stream: LiveStream, copy: dict[int, Message], cursor: int, count: int) -> int:
    for _ in range(count):
        try:
            event = await stream.next_event(1.0)
        except TimeoutError:
            return cursor
        assert event.revision > cursor, "an event came twice, or out of order"
        assert event.message["revision"] == event.revision
        cursor = event.revision
        copy[event.message["number"]] = event.message  # type: ignore[assignment]
    return cursor


async def _change_at_random(chat: ChatAt, rng: random.Random) -> None:
    for _ in range(25):
        number = rng.randint(1, 10)
        match rng.randint(1, 4):
            case 1:
                await chat.request("PATCH", f"/messages/{number}", json={"body": f"edited {rng.random()}"})
            case 2 if number % 3 == 0:
                await chat.delete(number)
            case _:
                await chat.post(f"message {rng.random()}")


async def test_a_live_reader_misses_no_change_between_snapshot_and_stream(chat: ChatAt) -> None:
    """A stream that keeps up tells every change one by one: nothing coalesces."""
    async with chat.follow() as stream:
        await chat.post("old")
        await stream.next_event()
        for index in range(2, 12):
            await chat.edit(1, body=f"edit {index}")
            event = await stream.next_event()
            assert (event.revision, event.name) == (index, "message.updated")


async def test_an_edit_in_the_moment_of_creation_is_still_an_update(chat: ChatAt) -> None:
    """However close the two were in time, an edited message replays as updated."""
    for number in range(1, 21):
        await chat.post()
        await chat.edit(number, body="edited")
    async with chat.follow(after=0) as stream:
        assert {event.name for event in await stream.events(20)} == {"message.updated"}


async def test_a_stream_over_http_1_0_has_no_chunks(house: House, chat: ChatAt) -> None:
    """A client that does not know chunked coding gets the events as they are, until the connection ends."""
    posted = await chat.post("past")
    async with connection(house) as raw, asyncio.timeout(10):
        await raw.send(f"GET {chat.path}/events?after=0 HTTP/1.0\r\n\r\n".encode())
        response = await raw.reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding" not in response.lower()
        for expected in (posted, await chat.post("present")):
            lines: list[bytes] = []
            while not lines or lines[-1]:
                lines.append((await raw.reader.readline()).removesuffix(b"\n"))
                if lines == [b""] or lines[0].startswith((b":", b"retry:")):
                    lines.clear()
            fields = dict(line.decode().split(": ", 1) for line in lines[:-1])
            assert fields["id"] == str(expected["revision"])
            assert json.loads(fields["data"]) == expected


async def test_comments_keep_an_idle_stream_alive(chat: ChatAt) -> None:
    """A stream without changes still carries comment lines, after its beginning too, and then works on."""
    async with chat.follow() as stream:
        assert await stream.is_silent(1.0)
        at_first = len(stream.comments)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + KEEP_ALIVE_WAIT_S
        while len(stream.comments) == at_first:
            assert loop.time() < deadline, "no comment came"
            assert await stream.is_silent(0.5)
        posted = await chat.post()
        assert (await stream.next_event()).message == posted


@pytest.mark.parametrize("after", [None, 0])
async def test_clients_are_asked_to_wait_a_second_before_they_reconnect(chat: ChatAt, after: int | None) -> None:
    """The stream says so before anything else: whoever is cut off then knows."""
    async with chat.follow(after=after) as stream:
        assert await stream.is_silent(0.5)
        assert stream.retry_ms == 1000
        posted = await chat.post()
        assert (await stream.next_event()).message == posted


async def test_a_stream_ends_when_its_application_is_erased(client: Client, chat: ChatAt, other_chat: ChatAt) -> None:
    """Its readers are told by the end; the streams of others go on."""
    async with chat.follow() as erased, other_chat.follow() as other:
        await client.erase_application(chat.token)
        assert await erased.ends()
        posted = await other_chat.post()
        assert (await other.next_event()).message == posted


async def flood(chat: ChatAt, batches: int, reader: LiveStream | None = None) -> int:
    """Post batches of 720 kB: 18 of them are more than the kernel's buffers hold. Returns the last revision.

    With a reader, each batch waits until the reader has seen the one before, so that it never falls behind by
    more than one batch, which is well below the 1 MiB of a slow one.
    """
    revision = 0
    for _ in range(batches):
        bodies = [f"{index}".ljust(60_000, ".") for index in range(BATCH_MESSAGES)]
        last = (await chat.post_batch(*bodies))[-1]["revision"]
        if reader is not None:
            events = await reader.events_until(last)
            assert [event.revision for event in events] == list(range(revision + 1, last + 1))
        revision = last
    return revision


async def read_what_is_left(raw: RawConnection) -> list[int]:
    """Read a stream to its end; the ids of the events that came whole."""
    data = bytearray()
    with contextlib.suppress(ConnectionError):
        while received := await asyncio.wait_for(raw.reader.read(1 << 20), timeout=20):
            data += received
    ids = [int(line[3:]) for line in data.split(b"\n") if line.startswith(b"id:")]
    # The last event may have been cut: its id stands before its data.
    return ids[:-1]


async def test_a_slow_reader_is_cut_off_and_catches_up_while_others_are_not_held_back(
    house: House, chat: ChatAt
) -> None:
    """Whoever stops reading loses the stream and resumes without a gap; another gets everything."""
    async with connection(house, receive_buffer_bytes=4096) as slow, chat.follow() as quick:
        await slow.send(head("GET", f"{chat.path}/events"))
        async with asyncio.timeout(10):
            assert b" 200 " in await slow.reader.readline()
        # Its stream is established: whatever is posted from now on is meant for it, too.
        last = await flood(chat, FLOOD_BATCHES, quick)
        received = await read_what_is_left(slow)
    assert received == list(range(1, len(received) + 1))
    assert len(received) < last - 1, "the slow reader was waited for"
    async with chat.follow(last_event_id=len(received)) as resumed:
        rest = await resumed.events_until(last)
    assert [event.revision for event in rest] == list(range(len(received) + 1, last + 1))


async def test_a_reader_that_keeps_up_replays_a_long_past_without_being_cut_off(chat: ChatAt) -> None:
    """More than 1 MiB of history is no reason to cut off whoever reads it."""
    last = await flood(chat, LONG_PAST_BATCHES)
    async with chat.follow(after=0) as stream:
        replayed = await stream.events_until(last)
    assert [event.revision for event in replayed] == list(range(1, last + 1))


async def test_readers_that_hang_up_leave_the_chat_working(house: House, chat: ChatAt) -> None:
    """Connections that vanish without a word disturb neither writers nor other readers."""
    async with chat.follow() as stream:
        for _ in range(30):
            async with connection(house) as raw:
                await raw.send(head("GET", f"{chat.path}/events"))
                async with asyncio.timeout(10):
                    await raw.reader.readline()
        posted = await chat.post_batch("a", "b")
        assert [event.message for event in await stream.events(2)] == posted
