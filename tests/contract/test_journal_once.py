"""Journal.append and Store.create_application with `once`: a repeat gets the first receipt, no more."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from chat_system.errors import IdempotencyMismatch, NotFound
from chat_system.model import (
    ApplicationId,
    Change,
    ChangeChat,
    ChatEdit,
    DeleteMessage,
    EditMessage,
    NewChat,
    NewMessage,
    Once,
    OpenChat,
    PostMessages,
    Receipt,
    Window,
)
from chat_system.ports import ApplicationWindow
from tests.contract.houses import TOKEN_CHARACTERS, OpenHouse

ONCE = Once.of("path", "key", b"payload")
OTHER_PAYLOAD = Once.of("path", "key", b"other payload")

CHANGES: dict[str, Change] = {
    "open": OpenChat(NewChat("A chat")),
    "post": PostMessages(1, [NewMessage("hello")]),
    "batch": PostMessages(1, [NewMessage("hello"), NewMessage("again"), NewMessage("and again")]),
    "edit": EditMessage(1, 1, 1, "edited", None),
    "delete": DeleteMessage(1, 1),
    "change chat": ChangeChat(1, ChatEdit(title="Other")),
}


async def contents(ports: OpenHouse, application: ApplicationId) -> object:
    """All that an application holds."""
    chats = await ports.store.chats(application, Window())
    return chats, [await ports.all_messages(application, chat.number) for chat in chats]


def repeat_of(receipt: Receipt) -> Receipt:
    """The receipt that a repeat must get."""
    return msgspec.structs.replace(receipt, replayed=True)


@pytest.fixture
async def posted(ports: OpenHouse, application: ApplicationId, chat: int) -> ApplicationId:
    """An application with a message in its first chat."""
    await ports.post(application, chat, "first")
    return application


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_repeat_returns_the_first_receipt_and_records_nothing(
    ports: OpenHouse, posted: ApplicationId, change: Change
) -> None:
    """Of every kind of change, right after and after reopening."""
    first = await ports.journal.append(posted, change, once=ONCE)
    assert not first.replayed
    recorded = await contents(ports, posted)
    for _ in range(2):
        assert await ports.journal.append(posted, change, once=ONCE) == repeat_of(first)
        await ports.reopen()
        assert await ports.journal.append(posted, change, once=ONCE) == repeat_of(first)
    assert await contents(ports, posted) == recorded


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_simultaneous_repeats_record_once(ports: OpenHouse, posted: ApplicationId, change: Change) -> None:
    """However many run at the same moment, one is the first and all get its receipt."""
    receipts = await asyncio.gather(*(ports.journal.append(posted, change, once=ONCE) for _ in range(20)))
    first = [receipt for receipt in receipts if not receipt.replayed]
    assert len(first) == 1
    assert [receipt for receipt in receipts if receipt.replayed] == [repeat_of(first[0])] * 19
    recorded = await contents(ports, posted)
    assert await ports.journal.append(posted, change, once=ONCE) == repeat_of(first[0])
    assert await contents(ports, posted) == recorded


async def test_a_repeat_is_recognised_among_others_at_the_same_time(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """Many keys, each twice, mixed with appends without a key: each key has one number, none is lost."""
    keys = [Once.of("path", f"key {index}", b"same") for index in range(15)]
    receipts = await asyncio.gather(
        *(ports.post(application, chat, f"body {index}", once=key) for index, key in enumerate(keys)),
        *(ports.post(application, chat, "no key") for _ in range(15)),
        *(ports.post(application, chat, f"body {index}", once=key) for index, key in enumerate(keys)),
    )
    for one, other in zip(receipts[:15], receipts[30:], strict=True):
        assert one.number == other.number
        assert sorted([one.replayed, other.replayed]) == [False, True]
    assert sorted({receipt.number for receipt in receipts}) == list(range(1, 31))
    assert len(await ports.bodies(application, chat)) == 30


async def test_another_payload_under_the_same_key_is_refused(ports: OpenHouse, posted: ApplicationId) -> None:
    """It is a mismatch, after reopening too, and it leaves the first as it was."""
    first = await ports.post(posted, 1, "hello", once=ONCE)
    for _ in range(2):
        with pytest.raises(IdempotencyMismatch):
            await ports.post(posted, 1, "other", once=OTHER_PAYLOAD)
        assert await ports.post(posted, 1, "hello", once=ONCE) == repeat_of(first)
        await ports.reopen()
    assert await ports.bodies(posted, 1) == ["first", "hello"]


async def test_of_two_payloads_at_the_same_time_one_is_refused(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """Whichever comes first keeps the key; all who sent the other are told."""
    outcomes = await asyncio.gather(
        *(ports.post(application, chat, "one", once=ONCE) for _ in range(4)),
        *(ports.post(application, chat, "two", once=OTHER_PAYLOAD) for _ in range(4)),
        return_exceptions=True,
    )
    receipts = [outcome for outcome in outcomes if isinstance(outcome, Receipt)]
    refusals = [outcome for outcome in outcomes if isinstance(outcome, IdempotencyMismatch)]
    assert (len(receipts), len(refusals)) == (4, 4)
    assert {receipt.number for receipt in receipts} == {1}
    assert len(await ports.bodies(application, chat)) == 1


async def test_a_key_belongs_to_its_application(ports: OpenHouse) -> None:
    """The same key and payload in another application is another request."""
    for _ in range(3):
        application, chat = await ports.new_chat()
        receipt = await ports.post(application, chat, "hello", once=ONCE)
        assert (receipt.number, receipt.replayed) == (1, False)


async def test_a_refusal_keeps_no_key(ports: OpenHouse, application: ApplicationId) -> None:
    """What was refused may be sent again with its key, and with another payload, once it is possible."""
    with pytest.raises(NotFound):
        await ports.post(application, 1, "too early", once=ONCE)
    chat = await ports.open_chat(application)
    receipt = await ports.post(application, chat, "in time", once=OTHER_PAYLOAD)
    assert (receipt.number, receipt.replayed) == (1, False)


async def test_a_repeat_is_answered_as_first_recorded_whatever_happened_since(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """Edited, deleted, followed by others: the receipt stays the first one."""
    first = await ports.post(application, chat, "hello", once=ONCE)
    await ports.edit(application, chat, 1, "edited")
    await ports.delete(application, chat, 1)
    await ports.post(application, chat, "later")
    assert await ports.post(application, chat, "hello", once=ONCE) == repeat_of(first)


async def test_a_key_is_recognised_as_long_as_it_says_and_for_ever_if_it_says_so(
    ports: OpenHouse, application: ApplicationId, chat: int
) -> None:
    """After its time a key is swept and free again; one that is kept for a day or for ever is not."""
    short = Once.of("path", "short", b"payload", kept_s=1)
    day = Once.of("path", "day", b"payload")
    ever = Once.of("path", "ever", b"payload", kept_s=None)
    for once in (short, day, ever):
        await ports.post(application, chat, "hello", once=once)
        assert (await ports.post(application, chat, "hello", once=once)).replayed
    await asyncio.sleep(1.1)
    while await ports.store.sweep():
        pass
    again = [await ports.post(application, chat, "hello", once=once) for once in (short, day, ever)]
    assert [(receipt.number, receipt.replayed) for receipt in again] == [(4, False), (2, True), (3, True)]
    assert (await ports.post(application, chat, "hello", once=short)).number == 4, "it is kept anew"


async def test_the_receipt_of_a_key_can_be_looked_up(ports: OpenHouse, application: ApplicationId, chat: int) -> None:
    """As the first call got it, whatever the payload now; None for a key that was not used here."""
    assert await ports.journal.receipt(application, ONCE) is None
    first = await ports.post(application, chat, "one", "two", once=ONCE)
    other = await ports.new_application()
    for _ in range(2):
        for once in (ONCE, OTHER_PAYLOAD):
            assert await ports.journal.receipt(application, once) == repeat_of(first)
        assert await ports.journal.receipt(other, ONCE) is None
        assert await ports.journal.receipt(application, Once.of("path", "another key", b"payload")) is None
        await ports.reopen()


async def test_an_application_is_created_once(ports: OpenHouse) -> None:
    """Sequentially, at the same time and after reopening, a repeat gets the first one's token."""
    names = iter(range(100))

    async def create() -> tuple[str, bool]:
        token = f"{next(names):0{TOKEN_CHARACTERS}d}"
        created, replayed = await ports.store.create_application(token, "Name", once=ONCE)
        assert created.name == "Name"
        return created.token, replayed

    answers = await asyncio.gather(*(create() for _ in range(8)))
    await ports.reopen()
    answers.append(await create())
    assert len({token for token, _ in answers}) == 1
    assert [replayed for _, replayed in answers].count(False) == 1
    assert len(await ports.store.applications(ApplicationWindow(limit=50))) == 1


async def test_another_name_under_the_same_key_is_refused(ports: OpenHouse) -> None:
    """A mismatch creates nothing."""
    await ports.store.create_application("a" * TOKEN_CHARACTERS, "One", once=ONCE)
    with pytest.raises(IdempotencyMismatch):
        await ports.store.create_application("b" * TOKEN_CHARACTERS, "Two", once=OTHER_PAYLOAD)
    assert [one.name for one in await ports.store.applications(ApplicationWindow(limit=50))] == ["One"]


async def test_creating_an_application_shares_its_keys_with_no_application(ports: OpenHouse) -> None:
    """A key that created an application is still free inside every application."""
    await ports.store.create_application("a" * TOKEN_CHARACTERS, "One", once=ONCE)
    application = await ports.store.resolve("a" * TOKEN_CHARACTERS)
    assert application is not None
    chat = await ports.open_chat(application)
    assert not (await ports.post(application, chat, "hello", once=ONCE)).replayed


async def test_a_key_does_not_bring_back_an_application_that_was_erased(ports: OpenHouse) -> None:
    """After the erasure a repeat creates a new application that opens."""
    await ports.store.create_application("a" * TOKEN_CHARACTERS, "One", once=ONCE)
    application = await ports.store.resolve("a" * TOKEN_CHARACTERS)
    assert application is not None
    await ports.store.erase_application(application)
    created, replayed = await ports.store.create_application("b" * TOKEN_CHARACTERS, "One", once=ONCE)
    assert (created.token, replayed) == ("b" * TOKEN_CHARACTERS, False)
    assert await ports.store.resolve(created.token) is not None
