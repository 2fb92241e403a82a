"""Brings a file of messages into an application: any number of times, each message once.

Promises: a chat for each chat name, numbered by first appearance; the messages of a chat in the order of the file,
with their times. A second import of the file adds nothing, one that was interrupted goes on where it stopped, and
of a file that has grown only what is new is added. Memory does not grow with the file, only with the number of
its chats.

How: whatever is recorded carries an idempotency key that is kept for ever. A batch's key is the chat's name and
the ordinal of its first message among the chat's messages in the file. Where batches end depends on nothing but
the file up to there, so that a repeat meets the same keys; the last batch of an earlier, shorter file is known by
the count in its receipt.

Not promised: that lines which were inserted, mended or taken out between two imports find their place. A number
is given once, so a chat that differs from what was imported is reported and left as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from chat_system.errors import IdempotencyMismatch, Invalid
from chat_system.model import (
    BATCH_MAX_MESSAGES,
    METADATA_MAX_BYTES,
    Application,
    ApplicationId,
    NewApplication,
    NewChat,
    NewMessage,
    Once,
)
from chat_system.system import ChatSystem
from chat_system.transfer.lines import check_chat_name, parse
from chat_system.transfer.source import Source

Posted = tuple[NewMessage, int]
"""A message, and when it was sent (milliseconds)."""

GATHERED_MAX_COST = 4 * 1024 * 1024
"""What may be gathered of all chats before it is recorded, batches full or not."""

IN_FLIGHT_MAX_COST = 4 * 1024 * 1024
"""What may wait for the disk. Enough that many batches share a flush."""

MESSAGE_COST = 300
BATCH_COST = 4_000
"""About the bytes of memory that a message takes beside its text, and a batch beside its messages."""

_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass
class Tally:
    """What became of the lines so far; `unfit` are those of chats that differ from what was imported before."""

    recorded: int = 0
    present: int = 0
    bad: int = 0
    unfit: int = 0
    chats_opened: int = 0
    chats_present: int = 0
    chats_differing: int = 0

    @property
    def lines(self) -> int:
        """All that were dealt with."""
        return self.recorded + self.present + self.bad + self.unfit

    @property
    def complete(self) -> bool:
        """Whether all of the file is in the application now."""
        return not self.bad and not self.chats_differing


@dataclass(slots=True)
class _Chat:
    """A chat of the file. `ordinal` counts the messages that are recorded, `gathered` waits for more."""

    number: int = 0
    ordinal: int = 0
    gathered: list[Posted] = field(default_factory=list)
    gathered_cost: int = 0
    last: asyncio.Task[list[Posted]] | None = None
    differs: bool = False


class Importer:
    """One import into an application. `complain` is told of each line and chat that is left out, and why."""

    def __init__(self, system: ChatSystem, application: ApplicationId, complain: Callable[[str], None]) -> None:
        self.tally = Tally()
        self._system = system
        self._application = application
        self._complain = complain
        self._chats: dict[str, _Chat] = {}
        self._unopened: dict[str, _Chat] = {}
        self._gathering: dict[str, _Chat] = {}
        self._gathered_cost = 0
        self._in_flight_cost = 0
        self._landed = asyncio.Event()
        self._tasks: asyncio.TaskGroup

    async def run(self, source: Source) -> None:
        """Read the file to its end; when this returns, all that is good in it is on disk.

        Raises:
            TransferError: the file can't be read further; what came before may be imported in part.
            ChatSystemError: recording failed; again, a part may be there.
        """
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await self._read(source)
                await self._flush()
        except ExceptionGroup as failed:
            # Whatever else failed, failed for the same reason.
            first = failed.exceptions[0]
            raise first from first.__cause__
        for name, chat in self._chats.items():
            if chat.last is not None:
                left = chat.last.result()
                self.tally.unfit += len(left)
                count = chat.ordinal + len(left)
                self._refuse(chat, f"chat {name!r}: the file has {count:,} messages of it, and more were imported")

    async def _read(self, source: Source) -> None:
        async for block in source.blocks():
            for number, text in block:
                if text is None or (text and not text.isspace()):
                    full = self._gather(number, text)
                    if full is not None:
                        await self._open_chats()
                        await self._record(full)
                    elif self._gathered_cost >= GATHERED_MAX_COST:
                        await self._flush()
            # What is on its way needs its turns, too.
            await asyncio.sleep(0)

    def _gather(self, number: int, text: bytes | None) -> str | None:
        """Take a line; the name of its chat if that makes a batch full."""
        try:
            name, message, at = parse(text)
            chat = self._chats.get(name) or self._meet(name)
        except Invalid as error:
            self.tally.bad += 1
            self._complain(f"line {number}: {error.detail}")
            return None
        if not chat.gathered:
            self._gathering[name] = chat
        cost = _cost(message)
        chat.gathered.append((message, at))
        chat.gathered_cost += cost
        self._gathered_cost += cost
        return name if len(chat.gathered) == BATCH_MAX_MESSAGES else None

    def _meet(self, name: str) -> _Chat:
        """A chat that was not seen before. Raises Invalid when none can be named so."""
        check_chat_name(name)
        chat = self._chats[name] = self._unopened[name] = _Chat()
        return chat

    async def _flush(self) -> None:
        """Record all that is gathered."""
        await self._open_chats()
        for name in list(self._gathering):
            await self._record(name)

    async def _open_chats(self) -> None:
        # All that are new, in the order in which they appeared: so they are numbered.
        unopened, self._unopened = self._unopened, {}
        for name, chat in unopened.items():
            chat.last = self._tasks.create_task(self._open(name, chat))
            await self._take_off(BATCH_COST)

    async def _record(self, name: str) -> None:
        """Send off what is gathered of a chat, behind what was sent off before."""
        chat = self._gathering.pop(name)
        posted, chat.gathered = chat.gathered, []
        cost, chat.gathered_cost = chat.gathered_cost, 0
        self._gathered_cost -= cost
        chat.last = self._tasks.create_task(self._post(name, chat, chat.last, posted, BATCH_COST + cost))
        await self._take_off(BATCH_COST + cost)

    async def _take_off(self, cost: int) -> None:
        """Count what was sent off, and wait while too much is on its way."""
        self._in_flight_cost += cost
        while self._in_flight_cost > IN_FLIGHT_MAX_COST:
            self._landed.clear()
            await self._landed.wait()

    def _land(self, cost: int) -> None:
        self._in_flight_cost -= cost
        self._landed.set()

    async def _open(self, name: str, chat: _Chat) -> list[Posted]:
        once = Once.of("import chat", name, b"", None)
        opened, replayed = await self._system.open_chat(self._application, NewChat(name), once=once)
        chat.number = opened.number
        self.tally.chats_opened += not replayed
        self.tally.chats_present += replayed
        self._land(BATCH_COST)
        return []

    async def _post(
        self,
        name: str,
        chat: _Chat,
        before: asyncio.Task[list[Posted]] | None,
        posted: list[Posted],
        cost: int,
    ) -> list[Posted]:
        """Record messages once their predecessors are; what is left over waits for its successors."""
        if before is not None:
            posted = await before + posted
        while posted and not chat.differs:
            count = await self._append(name, chat, posted)
            if count == 0:
                break
            chat.ordinal += count
            posted = posted[count:]
        if chat.differs:
            self.tally.unfit += len(posted)
            posted = []
        if not posted and chat.last is asyncio.current_task():
            chat.last = None
        self._land(cost)
        return posted

    async def _append(self, name: str, chat: _Chat, posted: list[Posted]) -> int:
        """Record a batch, or recognise it, or the first of it; how many messages are dealt with.

        None are when an earlier import took more of the chat in one batch than is at hand now.
        """
        once = _once(name, chat.ordinal, posted)
        try:
            receipt = await self._system.import_messages(
                self._application,
                chat.number,
                [message for message, _ in posted],
                sent_at=[at for _, at in posted],
                once=once,
            )
        except IdempotencyMismatch:
            earlier = await self._system.receipt(self._application, once)
            if earlier is None or earlier.count == len(posted):
                self._refuse(
                    chat,
                    f"chat {name!r}: from message {chat.ordinal + 1:,} on it is not what was imported before;"
                    " nothing more of it is imported",
                )
                return 0
            if earlier.count > len(posted):
                return 0
            return await self._append(name, chat, posted[: earlier.count])
        if receipt.replayed:
            self.tally.present += receipt.count
        else:
            self.tally.recorded += receipt.count
        return receipt.count

    def _refuse(self, chat: _Chat, complaint: str) -> None:
        chat.differs = True
        self.tally.chats_differing += 1
        self._complain(complaint)


async def application_named(system: ChatSystem, name: str) -> Application:
    """The application that imports under this name go into, made by the first of them.

    Raises:
        Invalid: no application can be named so.
    """
    new = NewApplication(name)
    try:
        msgspec.convert(msgspec.to_builtins(new), NewApplication)
        name.encode()
        new.check()
    except (msgspec.ValidationError, UnicodeEncodeError, Invalid) as error:
        raise Invalid(f"No application can be named {name!r}.") from error
    application, _ = await system.create_application(new, once=Once.of("import", name, b"", None))
    return application


def default_name(file: str) -> str:
    """What a file's application is called: as the file, without what its endings say of its form."""
    name = Path(file).name
    for ending in (".gz", ".ndjson", ".jsonl", ".json"):
        name = name.removesuffix(ending) or name
    return name


def _once(name: str, ordinal: int, posted: list[Posted]) -> Once:
    payload = _encode([(message.sender, at, message.body, message.metadata) for message, at in posted])
    return Once.of("import messages", f"{ordinal} {name}", payload, None)


def _cost(message: NewMessage) -> int:
    # Of what the line says, not of how it is written: the same messages must end in the same batches.
    return MESSAGE_COST + len(message.body) + (METADATA_MAX_BYTES if message.metadata else 0)
