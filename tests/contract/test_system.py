"""ChatSystem over the ports of each house: what the use cases add to numbering, durability and search."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from chat_system.errors import Conflict, Invalid, NotFound, Unavailable
from chat_system.model import (
    ApplicationEdit,
    ApplicationId,
    ChatEdit,
    Message,
    MessageEdit,
    NewApplication,
    NewChat,
    NewMessage,
    Once,
    Window,
)
from chat_system.ports import ApplicationWindow
from chat_system.system import EDIT_ATTEMPTS, ChatSystem
from tests.contract.houses import OpenHouse

ONCE = Once.of("path", "key", b"payload")


@pytest.fixture
async def system(ports: OpenHouse) -> ChatSystem:
    """The use cases over a house of this test's own."""
    return ChatSystem(ports.journal, ports.store, ports.search)


def metadata(message: Message) -> Any:
    """What a message's metadata say."""
    return None if message.metadata is None else msgspec.json.decode(message.metadata)


async def test_a_new_application_has_a_token_that_opens_it(system: ChatSystem) -> None:
    """43 characters of base64url, another each time; what is no token opens nothing."""
    created = [(await system.create_application(NewApplication("Name")))[0] for _ in range(20)]
    tokens = {application.token for application in created}
    assert len(tokens) == 20
    for token in tokens:
        assert len(token) == 43
        assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
        assert (await system.application(await system.open(token))).token == token
    for other in ("", "x" * 43, created[0].token[:-1], created[0].token + "x", created[0].token.swapcase()):
        with pytest.raises(NotFound):
            await system.open(other)


async def test_an_edit_of_an_application_replaces_what_it_names(system: ChatSystem) -> None:
    """A name; nothing, which changes nothing."""
    created, _ = await system.create_application(NewApplication("Name"))
    application = await system.open(created.token)
    assert await system.rename_application(application, ApplicationEdit()) == created
    assert (await system.rename_application(application, ApplicationEdit("Other"))).name == "Other"
    assert [one.name for one in await system.applications(ApplicationWindow(10))] == ["Other"]
    await system.erase_application(application)
    for edit in (ApplicationEdit(), ApplicationEdit("Back")):
        with pytest.raises(NotFound):
            await system.rename_application(application, edit)


async def test_what_was_posted_is_answered_as_it_is_read(system: ChatSystem, application: ApplicationId) -> None:
    """The answers of opening, posting, posting a batch and editing are what reading shows afterwards."""
    chat, _ = await system.open_chat(application, NewChat("Title", {"n": 1}))
    assert chat == await system.chat(application, chat.number)
    message, _ = await system.post_message(application, 1, NewMessage("one", "ada", {"n": 2}))
    assert message == await system.message(application, 1, 1)
    batch, _ = await system.post_messages(application, 1, [NewMessage("two"), NewMessage("three")])
    assert [message, *batch] == await system.messages(application, 1, Window())
    edited = await system.edit_message(application, 1, 2, MessageEdit(body="TWO"))
    assert edited == await system.message(application, 1, 2)
    changed = await system.edit_chat(application, 1, ChatEdit(title=None))
    assert changed == await system.chat(application, 1)
    assert [one.number for one in await system.chats(application, Window())] == [1]


async def test_a_repeat_is_answered_as_first_posted(system: ChatSystem, application: ApplicationId) -> None:
    """The flag says so; the answer shows the payload and not what became of it."""
    chat, replayed = await system.open_chat(application, NewChat("Title"), once=Once.of("chats", "key", b""))
    assert not replayed
    assert await system.open_chat(application, NewChat("Title"), once=Once.of("chats", "key", b"")) == (chat, True)
    first = await system.post_messages(application, 1, [NewMessage("one"), NewMessage("two")], once=ONCE)
    await system.edit_message(application, 1, 1, MessageEdit(body="edited"))
    await system.delete_message(application, 1, 2)
    again = await system.post_messages(application, 1, [NewMessage("one"), NewMessage("two")], once=ONCE)
    assert again == (first[0], True)


EDITS: dict[str, tuple[MessageEdit, str, Any, int]] = {
    "nothing": (MessageEdit(), "body", {"n": [1]}, 1),
    "the same body": (MessageEdit(body="body"), "body", {"n": [1]}, 1),
    "the same metadata": (MessageEdit(metadata={"n": [1]}), "body", {"n": [1]}, 1),
    "the same of both": (MessageEdit(body="body", metadata={"n": [1]}), "body", {"n": [1]}, 1),
    "another body": (MessageEdit(body="Body"), "Body", {"n": [1]}, 2),
    "other metadata": (MessageEdit(metadata={"n": [2]}), "body", {"n": [2]}, 2),
    "no metadata": (MessageEdit(metadata=None), "body", None, 2),
    "empty metadata": (MessageEdit(metadata={}), "body", {}, 2),
    "another body without metadata": (MessageEdit(body="x", metadata=None), "x", None, 2),
}


@pytest.mark.parametrize(("edit", "body", "data", "revision"), EDITS.values(), ids=EDITS)
async def test_an_edit_replaces_what_it_names_and_takes_a_revision_if_it_changes_anything(
    system: ChatSystem, application: ApplicationId, chat: int, edit: MessageEdit, body: str, data: Any, revision: int
) -> None:
    """Fields that are not named stay; an edit to what is there already is a success and no change."""
    await system.post_message(application, chat, NewMessage("body", None, {"n": [1]}))
    message = await system.edit_message(application, chat, 1, edit)
    assert (message.body, metadata(message), message.revision) == (body, data, revision)
    assert await system.revision(application, chat) == revision
    assert message == await system.message(application, chat, 1)


async def test_a_tombstone_is_not_edited(system: ChatSystem, application: ApplicationId, chat: int) -> None:
    """Not even by an edit that names nothing; deleting it again is no error."""
    await system.post_message(application, chat, NewMessage("body"))
    for _ in range(2):
        await system.delete_message(application, chat, 1)
    for edit in (MessageEdit(), MessageEdit(body="back")):
        with pytest.raises(Conflict):
            await system.edit_message(application, chat, 1, edit)
    with pytest.raises(NotFound):
        await system.edit_message(application, chat, 2, MessageEdit())


async def test_simultaneous_edits_all_take_effect_one_after_another(
    system: ChatSystem, application: ApplicationId, chat: int
) -> None:
    """However many in one process: each takes its revision, and none undoes what it did not name."""
    await system.post_message(application, chat, NewMessage("body"))
    edits = [MessageEdit(body=f"{index}") for index in range(4 * EDIT_ATTEMPTS)]
    edits.append(MessageEdit(metadata={"n": 1}))
    answers = await asyncio.gather(*(system.edit_message(application, chat, 1, edit) for edit in edits))
    assert sorted(answer.revision for answer in answers) == list(range(2, 2 + len(edits)))
    last = max(answers, key=lambda answer: answer.revision)
    assert await system.message(application, chat, 1) == last
    assert metadata(last) == {"n": 1}
    assert last.body in {edit.body for edit in edits}


@pytest.mark.parametrize("processes", [2, EDIT_ATTEMPTS, 3 * EDIT_ATTEMPTS])
async def test_edits_through_several_processes_take_effect_or_are_refused(
    ports: OpenHouse, application: ApplicationId, chat: int, processes: int
) -> None:
    """Use cases that know nothing of each other: a stale edit is tried anew, who would be for ever may come back."""
    systems = [ChatSystem(ports.journal, ports.store, ports.search) for _ in range(processes)]
    await ports.post(application, chat, "body")
    edits = (
        system.edit_message(application, chat, 1, MessageEdit(body=f"{index}")) for index, system in enumerate(systems)
    )
    outcomes = await asyncio.gather(*edits, return_exceptions=True)
    edited = [outcome for outcome in outcomes if isinstance(outcome, Message)]
    assert all(isinstance(outcome, Message | Unavailable) for outcome in outcomes)
    assert len(edited) >= min(processes, EDIT_ATTEMPTS)
    assert await ports.store.revision(application, chat) == 1 + len(edited)
    assert sorted(message.revision for message in edited) == list(range(2, 2 + len(edited)))


async def test_searches_fold_what_they_are_given(
    ports: OpenHouse, system: ChatSystem, application: ApplicationId, chat: int
) -> None:
    """Both searches, in any letter case; a query that is none is refused before anything is read."""
    await system.post_messages(application, chat, [NewMessage("Straße"), NewMessage("road")])
    await ports.until_searchable()
    for query in ("STRASSE", "straße", "ß", "ss"):
        assert [one.number for one in await system.search_chat(application, chat, query)] == [1]
        assert [one.number for _, one in await system.search_application(application, query)] == [1]
    for query in ("", "x" * 257, "\0"):
        with pytest.raises(Invalid):
            await system.search_chat(application, chat, query)
        with pytest.raises(Invalid):
            await system.search_application(application, query)


async def test_an_export_holds_everything_that_is_not_deleted(system: ChatSystem, application: ApplicationId) -> None:
    """Chat by chat, in order, over many pages; an empty chat comes once, with nothing."""
    sizes = [3, 0, 200, 201, 450]
    for size in sizes:
        chat, _ = await system.open_chat(application, NewChat(f"{size} messages"))
        if size:
            await system.post_messages(application, chat.number, [NewMessage(f"{n}") for n in range(1, size + 1)])
    for number in (1, 200, 201):
        await system.delete_message(application, 5, number)
    found: dict[int, list[str | None]] = {}
    times: dict[int, int] = {}
    async for chat, messages in system.export(application):
        found.setdefault(chat.number, []).extend(message.body for message in messages)
        times[chat.number] = times.get(chat.number, 0) + 1
    wanted = {index: [f"{n}" for n in range(1, size + 1)] for index, size in enumerate(sizes, 1)}
    wanted[5] = [body for body in wanted[5] if body not in {"1", "200", "201"}]
    assert found == wanted
    assert list(found) == [1, 2, 3, 4, 5]
    assert times[1] == times[2] == 1


async def test_what_operators_ask_for_reaches_the_store(
    ports: OpenHouse, system: ChatSystem, application: ApplicationId, chat: int
) -> None:
    """Health, consistency, counts, sweeping."""
    await system.ping()
    await ports.settle()
    assert await system.verify() == []
    assert await system.recount() == []
    await system.erase_application(application)
    while await system.sweep():
        pass
    assert await system.applications(ApplicationWindow(10)) == []
