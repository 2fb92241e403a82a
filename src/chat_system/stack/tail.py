"""What the journal has accepted and the store may not have applied yet: the tail that reads lay over MySQL.

A fact leaves its chat's tail only after MySQL has committed it. So whoever reads the tail first and the store
afterwards misses nothing: what is in neither was applied in between, and the store had it when it was asked.

Every question tells, too, whether the application was erased, and notices when Redis has lost its data.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from chat_system.errors import NotFound
from chat_system.model import NUMBER_MAX, ApplicationId, ChatChanged, MessageChanged, Window
from chat_system.stack.facts import ChatFact, decode_raw_run, decode_run
from chat_system.stack.gathering import Gathering
from chat_system.stack.redis import Redis, Script

CHAT, MESSAGE, WINDOW, REVISIONS, CHATS, APPLICATION = range(1, 7)
"""What may be asked, as tail.lua numbers it."""

WINDOW_MAX = 1_000
"""No page is longer; a larger limit would be a defect of ours."""


class ChatSeed(Struct, frozen=True):
    """Where a chat's counters stand, by what the store holds."""

    last: int
    revision: int
    messages_count: int
    version: int


class ChatTail(Struct, frozen=True):
    """What the journal knows of a chat and the store may not know yet.

    `warm` False: nothing of the chat is unapplied, and the chat exists only if the store has it. `last` and
    `revision` are the highest that were given (0 if not warm), `chat` its own fields if a change of them is
    unapplied, `messages` the unapplied states of what was asked for, by number, and `edited` the numbers of all
    messages with an unapplied edit or deletion (asked for with `revisions` only).

    `read_at` (Redis' clock, milliseconds) and `epoch` say when this was so.
    """

    warm: bool
    last: int
    revision: int
    chat: ChatChanged | None
    messages: dict[int, MessageChanged]
    edited: frozenset[int]
    read_at: int
    epoch: int


class ChatsTail(Struct, frozen=True):
    """The chats of an application that are opened or changed and not applied yet. `last` is 0 if unknown."""

    last: int
    chats: dict[int, ChatChanged]


class _Answer(Struct, array_like=True):
    erased: bool
    warm: bool
    last: int
    revision: int
    own: ChatFact | None
    low: int
    high: int
    above: int
    runs: list[tuple[msgspec.Raw, str | None]]
    facts: list[msgspec.Raw]
    edited: list[int]


class _Answers(Struct, array_like=True):
    epoch: int
    now: int
    answers: list[_Answer]


_decode_answers = msgspec.msgpack.Decoder(_Answers).decode
_decode_chat = msgspec.msgpack.Decoder(ChatFact).decode
_encode = msgspec.msgpack.Encoder().encode


class Tail:
    """Asks Redis. All methods raise NotFound for an erased application, Unavailable when Redis is away.

    `renewed` is called when a partition is in another epoch than this process knew: what it remembers of the
    partition's applications may be wrong. It raises NotFound when the application that was asked for is erased.
    """

    def __init__(self, redis: Redis, renewed: Callable[[int, ApplicationId, int], Awaitable[int]]) -> None:
        self._redis = redis
        self._renewed = renewed
        self._epochs: dict[int, int] = {}
        # About how long an answer is. Of long ones few go into a round: Redis would have all of them in memory at once.
        self._answer_bytes = 0
        self._questions = Gathering(
            redis, Script("tail"), lambda asked: [_encode(asked)], self._unpack, weigh=lambda _: self._answer_bytes
        )

    async def chat(self, application: ApplicationId, chat: int) -> ChatTail:
        """The chat without its messages."""
        return _chat_tail(await self._ask(application, [CHAT, application, chat]))

    async def message(self, application: ApplicationId, chat: int, number: int) -> ChatTail:
        """With one message, if a change of it is unapplied."""
        return _chat_tail(await self._ask(application, [MESSAGE, application, chat, number]))

    async def window(self, application: ApplicationId, chat: int, window: Window) -> ChatTail:
        """With all unapplied messages that a page may hold."""
        return _chat_tail(await self._ask(application, [WINDOW, application, chat, *_bounds(window)]))

    async def revisions(self, application: ApplicationId, chat: int, after: int, limit: int) -> ChatTail:
        """With the `limit` unapplied changes that are next above a revision."""
        return _chat_tail(await self._ask(application, [REVISIONS, application, chat, after, limit]))

    async def chats(self, application: ApplicationId, window: Window) -> ChatsTail:
        """The unapplied chats that a page may hold; a few others may be among them."""
        answer, _, _ = await self._ask(application, [CHATS, application, 0, *_bounds(window)])
        facts = [_decode_chat(fact) for fact in answer.facts]
        return ChatsTail(answer.last, {fact.head.chat: fact.changed() for fact in facts})

    async def application(self, application: ApplicationId) -> None:
        """Nothing but the check."""
        await self._ask(application, [APPLICATION, application])

    def epoch_of(self, application: ApplicationId) -> int:
        """The epoch in which the application's partition was last seen; 0: not at all."""
        return self._epochs.get(self._redis.partition(application), 0)

    async def close(self) -> None:
        """Wait for what is under way."""
        await self._questions.close()

    def _unpack(self, packed: bytes, asked: Sequence[Any]) -> Sequence[tuple[_Answer, int, int]]:
        self._answer_bytes = max(len(packed) // len(asked), self._answer_bytes // 2)
        found = _decode_answers(packed)
        return [(answer, found.now, found.epoch) for answer in found.answers]

    async def _ask(self, application: ApplicationId, question: list[Any]) -> tuple[_Answer, int, int]:
        partition = self._redis.partition(application)
        answer, now, epoch = await self._questions.ask(partition, question)
        if epoch != self._epochs.get(partition):
            # An epoch of 0: Redis knows nothing of the partition, and somebody has to begin one.
            self._epochs[partition] = await self._renewed(partition, application, epoch)
            epoch = self._epochs[partition]
        if answer.erased:
            raise NotFound
        return answer, now, epoch


def _bounds(window: Window) -> list[Any]:
    before = 0 if window.before is None else min(window.before, NUMBER_MAX + 1)
    return [
        min(window.after, NUMBER_MAX),
        before,
        min(window.limit, WINDOW_MAX),
        window.from_end,
        min(window.skip, NUMBER_MAX),
    ]


def _chat_tail(asked: tuple[_Answer, int, int]) -> ChatTail:
    answer, now, epoch = asked
    messages = _posted(answer) if answer.runs else {}
    for encoded in answer.facts:
        for changed in decode_run(encoded).changed():
            messages[changed.number] = changed
    return ChatTail(
        answer.warm,
        answer.last,
        answer.revision,
        None if answer.own is None else answer.own.changed(),
        messages,
        frozenset(answer.edited),
        now,
        epoch,
    )


def _posted(answer: _Answer) -> dict[int, MessageChanged]:
    """The posted messages that were asked for, neither applied nor changed since."""
    found = {}
    for encoded, marks in answer.runs:
        run = decode_raw_run(encoded)
        head = run.head
        first = max(0, answer.low - head.number, answer.above + 1 - head.revision)
        last = min(len(run.contents), answer.high + 1 - head.number)
        if first < last:
            for index, changed in enumerate(run.part(first, last).changed(), first):
                if marks is None or marks[index] == "0":
                    found[changed.number] = changed
    return found
