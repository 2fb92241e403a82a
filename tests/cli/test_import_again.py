"""What an import recognises of earlier ones: files that grew, shrank, changed, and crashes at every place."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_system.errors import Unavailable
from chat_system.model import NewChat, NewMessage, Receipt
from chat_system.settings import Settings
from chat_system.system import ChatSystem
from chat_system.transfer import importing
from chat_system.wiring import House, open_house
from tests.cli.lines import Fields, by_chat, line
from tests.cli.target import Target


class Failing:
    """A system that fails for good once it has recorded so many batches."""

    def __init__(self, system: ChatSystem, batches: int) -> None:
        self._system = system
        self._left = batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._system, name)

    async def import_messages(self, *arguments: Any, **named: Any) -> Receipt:
        """The system's own, or a failure before or after the batch was recorded."""
        if self._left <= 0:
            raise Unavailable("planted")
        self._left -= 1
        return await self._system.import_messages(*arguments, **named)


def numbered(count: int, chat: str = "general") -> list[Fields]:
    """Lines of one chat."""
    return [line(chat, f"message {number}") for number in range(count)]


@pytest.mark.parametrize("before", [1, 499, 500, 501, 700, 1_000, 1_001])
async def test_of_a_file_that_has_grown_only_the_new_lines_are_added(target: Target, before: int) -> None:
    """Wherever the first import ended within a batch, old and new chats get exactly what is new."""
    old = numbered(before)
    await target.take(old)
    new = old + numbered(3, "another") + numbered(1_700)[before:]
    tally = await target.take(new)
    assert (tally.present, tally.recorded, tally.complete) == (before, len(new) - before, True)
    assert await target.holds() == by_chat(new)
    assert (await target.take(new)).recorded == 0


async def test_a_file_that_grows_a_little_each_time_is_followed(target: Target) -> None:
    """Twelve imports of a growing file add each line once."""
    lines = numbered(1_300)
    for count in range(100, 1_301, 100):
        assert (await target.take(lines[:count])).recorded == 100
    assert await target.holds() == lines


@pytest.mark.parametrize("changed", [0, 250, 499, 500, 599])
async def test_a_chat_that_differs_is_reported_and_left_as_it_is(target: Target, changed: int) -> None:
    """One body differs: nothing of its batch and what follows is imported; another chat of the file is."""
    lines = numbered(600)
    await target.take(lines)
    other = [*lines[:changed], line(body="changed"), *lines[changed + 1 :], *numbered(300)]
    tally = await target.take(other + numbered(2, "another"))
    batch = changed // 500 * 500
    [complaint] = target.complaints
    assert complaint.startswith(f"chat 'general': from message {batch + 1} on it is not what was imported before;")
    assert (tally.chats_differing, tally.recorded, tally.present) == (1, 2, batch)
    assert tally.unfit == len(other) - batch
    assert not tally.complete
    assert await target.holds() == lines + numbered(2, "another")


@pytest.mark.parametrize("field", [{"sender": "b"}, {"sent_at": "2026-01-31T12:00:00.001Z"}, {"metadata": {"a": 1}}])
async def test_a_difference_in_any_field_is_seen(target: Target, field: Fields) -> None:
    """Sender, time and metadata count like the body."""
    await target.take(numbered(3))
    assert (await target.take([*numbered(2), numbered(3)[2] | field])).chats_differing == 1
    assert await target.holds() == numbered(3)


async def test_the_same_messages_written_otherwise_are_the_same(target: Target) -> None:
    """Order of keys, escapes, offsets and what lies below a millisecond make no difference."""
    await target.take([line(body="é", metadata={"a": 1, "b": 2})])
    again = {"metadata": {"b": 2, "a": 1}, "body": "é", "sent_at": "2026-01-31T13:00:00.000999+01:00"}
    assert (await target.take([again | {"sender": "amira", "chat": "general"}])).present == 1


async def test_a_file_that_lacks_lines_of_an_earlier_one_is_reported(target: Target) -> None:
    """What is missing can't be compared, so the chat is named and nothing is added."""
    await target.take(numbered(700))
    tally = await target.take(numbered(600))
    assert target.complaints == ["chat 'general': the file has 600 messages of it, and more were imported"]
    assert (tally.present, tally.recorded, tally.unfit, tally.complete) == (500, 0, 100, False)
    assert await target.holds() == numbered(700)


async def test_batches_of_another_length_are_recognised(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import by a version that takes longer or shorter batches is known all the same."""
    lines = numbered(40)
    for length in (9, 4, 13, 500):
        monkeypatch.setattr(importing, "BATCH_MAX_MESSAGES", length)
        lines = lines + [line(body=f"{length} {number}") for number in range(11)]
        tally = await target.take(lines)
        assert (tally.complete, target.complaints) == (True, [])
        assert await target.holds() == lines


async def test_messages_that_others_posted_meanwhile_are_no_matter(target: Target) -> None:
    """The import counts its own messages: what was posted to its chat in between stands where it came."""
    await target.take(numbered(2))
    await target.system.post_message(target.application, 1, NewMessage("posted"))
    await target.take(numbered(4))
    assert [one["body"] for one in await target.holds()] == [
        "message 0",
        "message 1",
        "posted",
        "message 2",
        "message 3",
    ]


async def test_chats_that_others_opened_are_left_alone(target: Target) -> None:
    """A chat of the same title is no chat of the import's."""
    await target.system.open_chat(target.application, NewChat("general"))
    await target.system.post_message(target.application, 1, NewMessage("posted"))
    await target.take(numbered(1))
    assert [(one["chat"], one["body"]) for one in await target.holds()] == [
        ("general", "posted"),
        ("general (2)", "message 0"),
    ]


async def test_an_application_that_was_erased_is_imported_anew(house: House, tmp_path: Path) -> None:
    """Its name then makes another application, with everything in it."""
    first = await Target.of(house, tmp_path)
    await first.take(numbered(5))
    await house.system.erase_application(first.application)
    second = await Target.of(house, tmp_path)
    assert (await second.take(numbered(5))).recorded == 5
    assert await second.holds() == numbered(5)


async def test_what_fails_while_recording_is_raised_and_keeps_its_cause(target: Target) -> None:
    """The failure reaches the caller as it is, not as a group."""
    with pytest.raises(Unavailable, match="planted"):
        await target.take(numbered(3), Failing(target.system, 0))


files = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 3)), max_size=40)


@given(
    files,
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=4),
    st.tuples(st.integers(2, 6), st.integers(2, 9)),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_crashes_and_growth_in_any_order_end_with_exactly_the_file(
    empty_database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    messages: list[tuple[str, int]],
    attempts: list[tuple[int, int]],
    limits: tuple[int, int],
) -> None:
    """Imports of growing beginnings of a file, each failing after some batches; the last one is left alone."""
    lines = [line(chat, f"{index} {text}") for index, (chat, text) in enumerate(messages)]
    batch, gathered = limits
    monkeypatch.setattr(importing, "BATCH_MAX_MESSAGES", batch)
    monkeypatch.setattr(importing, "GATHERED_MAX_COST", gathered * (importing.MESSAGE_COST + 4))
    monkeypatch.setattr(importing, "IN_FLIGHT_MAX_COST", 2 * importing.BATCH_COST)

    path = tmp_path / "property.sqlite3"
    path.unlink(missing_ok=True)
    path.write_bytes(empty_database.read_bytes())

    async def crash_and_go_on() -> None:
        async with open_house(Settings(sqlite_path=str(path))) as house:
            target = await Target.of(house, tmp_path)
            for length, batches in sorted(attempts):
                try:
                    await target.take(lines[:length], Failing(target.system, batches))
                except Unavailable:
                    continue
            tally = await target.take(lines)
            assert (tally.complete, target.complaints) == (True, [])
            assert await target.holds() == by_chat(lines)
            assert (await target.take(lines)).recorded == 0
            assert not await house.system.verify()

    asyncio.run(crash_and_go_on())
