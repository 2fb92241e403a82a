"""Journal.append: edits, deletions and changes of a chat; a change of a message takes one revision."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import msgspec
import pytest

from chat_system.errors import Conflict, NotFound, Stale
from chat_system.model import (
    NUMBER_MAX,
    ApplicationId,
    Change,
    ChangeChat,
    ChatEdit,
    DeleteMessage,
    EditMessage,
    NewChat,
    NewMessage,
    OpenChat,
    PostMessages,
    Receipt,
    Window,
    milliseconds,
    rfc3339,
)
from tests.contract.houses import OpenHouse


async def test_an_edit_replaces_the_content_and_nothing_else(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """Body and metadata are new, the revision is the next, updated_at is later; all else stays."""
    await ports.journal.append(application, PostMessages(chat, [NewMessage("old", "ada", {"n": 1})]))
    before = await ports.store.message(application, chat, 1)
    receipt = await ports.journal.append(application, EditMessage(chat, 1, 1, "new", b'{"n":2}'))
    after = await ports.store.message(application, chat, 1)
    assert (receipt.number, receipt.revision) == (1, 2)
    assert (after.body, bytes(after.metadata or b""), after.revision) == ("new", b'{"n":2}', 2)
    assert after.updated_at == rfc3339(receipt.at)
    assert milliseconds(after.updated_at) > milliseconds(after.created_at), "a change is told from a creation"
    assert (after.number, after.sender, after.created_at) == (before.number, before.sender, before.created_at)
    assert after.deleted_at is None


async def test_an_edit_can_clear_the_metadata(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """Metadata None is stored as none."""
    await ports.journal.append(application, PostMessages(chat, [NewMessage("body", None, {"n": 1})]))
    await ports.journal.append(application, EditMessage(chat, 1, 1, "body", None))
    assert (await ports.store.message(application, chat, 1)).metadata is None


async def test_an_edit_of_an_older_revision_is_stale(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """What was read before the latest change can't be built upon; a revision of the future can't either."""
    await ports.post(application, chat, "one")
    await ports.edit(application, chat, 1, "two")
    for based_on in (1, 3, 0):
        with pytest.raises(Stale):
            await ports.journal.append(application, EditMessage(chat, 1, based_on, "three", None))
    assert (await ports.store.message(application, chat, 1)).body == "two"


async def test_of_simultaneous_edits_of_one_revision_one_wins(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """The others are stale, and what is stored is the winner's."""
    await ports.post(application, chat, "original")
    edits = [EditMessage(chat, 1, 1, f"edit {index}", None) for index in range(12)]
    outcomes = await asyncio.gather(
        *(ports.journal.append(application, edit) for edit in edits), return_exceptions=True
    )
    winners = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, Receipt)]
    assert len(winners) == 1
    assert sum(isinstance(outcome, Stale) for outcome in outcomes) == 11
    assert await ports.bodies(application, chat) == [f"edit {winners[0]}"]
    assert await ports.store.revision(application, chat) == 2


async def test_a_deleted_message_leaves_a_tombstone(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """Number, sender and creation stay; body and metadata are gone; the count forgets it."""
    await ports.journal.append(application, PostMessages(chat, [NewMessage("secret", "ada", {"n": 1})]))
    before = await ports.store.message(application, chat, 1)
    receipt = await ports.delete(application, chat, 1)
    tombstone = await ports.store.message(application, chat, 1)
    assert (receipt.number, receipt.revision) == (1, 2)
    assert (tombstone.body, tombstone.metadata) == (None, None)
    assert (tombstone.number, tombstone.sender, tombstone.created_at) == (1, "ada", before.created_at)
    assert tombstone.deleted_at == tombstone.updated_at == rfc3339(receipt.at)
    assert tombstone.revision == 2
    await ports.settle()
    assert (await ports.store.chat(application, chat)).messages_count == 0


async def test_deleting_a_tombstone_changes_nothing(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """Again and at the same time: one revision is taken, the count falls once."""
    await ports.post(application, chat, "one", "two")
    await asyncio.gather(*(ports.delete(application, chat, 1) for _ in range(5)))
    tombstone = await ports.store.message(application, chat, 1)
    await ports.delete(application, chat, 1)
    assert await ports.store.message(application, chat, 1) == tombstone
    assert await ports.store.revision(application, chat) == 3
    await ports.settle()
    assert (await ports.store.chat(application, chat)).messages_count == 1


async def test_a_tombstone_can_not_be_edited(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """It is a conflict, also on its latest revision, and more than staleness."""
    await ports.post(application, chat, "one")
    await ports.delete(application, chat, 1)
    for based_on in (1, 2):
        with pytest.raises(Conflict) as refusal:
            await ports.journal.append(application, EditMessage(chat, 1, based_on, "back", None))
        assert not isinstance(refusal.value, Stale), "trying again would never help"
    assert await ports.bodies(application, chat) == [None]


async def test_an_unknown_message_is_not_found(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """Neither beyond the last nor before the first is there anything to change."""
    await ports.post(application, chat, "only")
    for number in (0, 2, NUMBER_MAX):
        for change in (EditMessage(chat, number, 1, "x", None), DeleteMessage(chat, number)):
            with pytest.raises(NotFound):
                await ports.journal.append(application, change)


async def test_a_number_that_no_chat_can_reach_is_unknown_and_harms_nobody(ports: OpenHouse) -> None:
    """Numbers that would fill the space of their neighbours' keys change nothing of any other chat."""
    everyone = [await ports.new_chat() for _ in range(6)]
    for owner, chat in everyone:
        await ports.post(owner, chat, "mine")
    harmed = []
    for owner, chat in everyone:
        for number in (2**31, 2**32 + 1, 2**33 + 1, 2**32, 9_999_999_999, 2**63 - 1):
            for change in (DeleteMessage(chat, number), EditMessage(chat, number, 1, "yours", None)):
                outcome = await asyncio.gather(ports.journal.append(owner, change), return_exceptions=True)
                if not isinstance(outcome[0], NotFound):
                    harmed.append((owner, change, outcome[0]))
    assert harmed == []
    for owner, chat in everyone:
        assert await ports.bodies(owner, chat) == ["mine"]


async def test_every_change_of_a_message_takes_one_revision_and_nothing_else_takes_any(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """Along a random history the chat's revision grows by exactly the number of real changes."""
    choices = random.Random(11)
    revision, last = 0, 0

    async def post() -> int:
        count = choices.choice([1, 1, 3])
        await ports.post(application, chat, *["text"] * count)
        return count

    async def edit() -> int:
        message = await ports.store.message(application, chat, choices.randint(1, last))
        if message.body is None:
            return 0
        await ports.edit(application, chat, message.number, message.body + "!")
        return 1

    async def delete() -> int:
        number = choices.randint(1, last)
        was = await ports.store.message(application, chat, number)
        await ports.delete(application, chat, number)
        return int(was.deleted_at is None)

    async def change_chat() -> int:
        title = ChatEdit(title=f"Title {choices.random()}")
        await ports.journal.append(application, ChangeChat(chat, title))
        return 0

    for step in range(80):
        act: Callable[[], object] = post if last == 0 else choices.choice([post, edit, edit, delete, change_chat])
        taken = await act()  # type: ignore[misc]
        last += taken if act is post else 0
        revision += taken
        assert await ports.store.revision(application, chat) == revision, f"step {step}"
        if step % 10 == 0:
            await ports.settle()
            assert (await ports.store.chat(application, chat)).revision == revision
    await ports.settle()
    live = sum(body is not None for body in await ports.bodies(application, chat))
    assert (await ports.store.chat(application, chat)).messages_count == live
    changes = await ports.store.changes(application, chat, 0, 1000)
    assert sorted(changes, key=lambda message: message.number) == await ports.all_messages(application, chat)
    revisions = [message.revision for message in changes]
    assert revisions == sorted(set(revisions)), "each message once, by the revision of its last change"


async def test_simultaneous_changes_of_one_chat_take_consecutive_revisions(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """Posts, edits and deletions at once: no revision is taken twice and none is left out."""
    await ports.post(application, chat, *(f"first {index}" for index in range(20)))
    acts: list[Change] = [
        *(EditMessage(chat, index, index, "edited", None) for index in range(1, 8)),
        *(DeleteMessage(chat, index) for index in range(10, 16)),
        *(PostMessages(chat, [NewMessage("new")]) for _ in range(9)),
    ]
    random.Random(3).shuffle(acts)
    receipts = await asyncio.gather(*(ports.journal.append(application, act) for act in acts))
    assert sorted(receipt.revision for receipt in receipts) == list(range(21, 21 + len(acts)))


FULL = NewChat("Title", {"n": 1})
EDITS: dict[str, tuple[ChatEdit, str | None, bytes | None]] = {
    "nothing": (ChatEdit(), "Title", b'{"n":1}'),
    "title": (ChatEdit(title="Other"), "Other", b'{"n":1}'),
    "no title": (ChatEdit(title=None), None, b'{"n":1}'),
    "metadata": (ChatEdit(metadata={"m": [1]}), "Title", b'{"m":[1]}'),
    "no metadata": (ChatEdit(metadata=None), "Title", None),
    "empty metadata": (ChatEdit(metadata={}), "Title", b"{}"),
    "both": (ChatEdit(title="Other", metadata=None), "Other", None),
}


@pytest.mark.parametrize(("edit", "title", "metadata"), EDITS.values(), ids=EDITS)
async def test_a_change_of_a_chat_replaces_what_it_names(
    ports: OpenHouse, application: ApplicationId, edit: ChatEdit, title: str | None, metadata: bytes | None
) -> None:
    """Fields that are not named stay, null clears; neither revision nor counts are touched."""
    chat = (await ports.journal.append(application, OpenChat(FULL))).number
    await ports.post(application, chat, "hello")
    await ports.settle()
    before = await ports.store.chat(application, chat)
    await ports.journal.append(application, ChangeChat(chat, edit))
    after = await ports.store.chat(application, chat)
    assert (after.title, None if after.metadata is None else bytes(after.metadata)) == (title, metadata)
    kept = ("number", "messages_count", "revision", "created_at")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
    assert milliseconds(after.updated_at) >= milliseconds(before.updated_at)


async def test_a_change_that_changes_nothing_leaves_no_trace(ports: OpenHouse, application: ApplicationId) -> None:
    """A chat that is given what it has keeps its updated_at."""
    chat = (await ports.journal.append(application, OpenChat(FULL))).number
    before = await ports.store.chat(application, chat)
    await asyncio.sleep(0.005)
    for edit in (ChatEdit(), ChatEdit(title="Title"), ChatEdit(title="Title", metadata={"n": 1})):
        await ports.journal.append(application, ChangeChat(chat, edit))
    assert await ports.store.chat(application, chat) == before


async def test_content_survives_byte_for_byte(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """Text that a careless layer trims, normalises or breaks comes back as it was, in every field."""
    texts = [
        "  padded \t",
        "e\u0301 \u212b",
        "\u202eשלום",
        "😀\U0010fffd",
        "\ufffe\uffff",
        "\x01\x7f",
        "a\r\nb\u2028",
    ]
    for text in texts:
        metadata = {text: [text, {"deep": text}], "n": [1, -1.5, None, True, 2**53]}
        new = NewMessage(text, text, metadata)
        receipt = await ports.journal.append(application, PostMessages(chat, [new]))
        message = await ports.store.message(application, chat, receipt.number)
        assert (message.body, message.sender) == (text, text)
        assert message.metadata is not None
        assert msgspec.json.decode(message.metadata) == metadata
        number = (await ports.journal.append(application, OpenChat(NewChat(text, metadata)))).number
        found = await ports.store.chat(application, number)
        assert found.title == text
        assert found.metadata is not None
        assert msgspec.json.decode(found.metadata) == metadata
    assert [chat.title for chat in await ports.store.chats(application, Window(after=1))] == texts
