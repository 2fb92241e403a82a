"""How changes are put to append.lua, and its answers read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

import msgspec

from chat_system.model import ApplicationId, NewMessage, Once, PostMessages, Receipt, encode_metadata
from chat_system.stack import facts
from chat_system.telemetry import ACCEPTED

RECORDED, COLD, ERASED, MISMATCH, STALE, ASK = range(6)
"""What append.lua answers to a change."""

REPLAYED = 5
"""An answer that is longer than this is that of the first request with a key."""

CHANGE_BYTES = 256
"""What a change costs beside its contents."""

PIECE_MESSAGES, PIECE_BYTES = 500, 64_000
"""Of contents that stand together, unless one is larger by itself: a stream entry holds little more."""

_ARRAY_SHORT, _ARRAY_BYTES_SHORT, _ARRAY_BYTES = 16, 1, 3
"""MessagePack begins an array with one byte if it has fewer elements than this, and with three otherwise."""

_decode = msgspec.msgpack.Decoder(list[list[Any]]).decode


class Asked:
    """A change on its way to append.lua.

    `rest` is what its kind needs to be decided: of a post, how many messages each of its contents has; see append.lua
    for the others. `count` is how many messages or chats it is about. In a call it has a place among the changes, and
    may stand behind other messages there.
    """

    __slots__ = (
        *("application", "before", "chat", "checked", "contents", "count", "kind", "once", "place", "rest", "seed"),
    )

    def __init__(
        self,
        kind: int,
        application: ApplicationId,
        chat: int,
        once: Once | None,
        rest: list[int],
        contents: list[bytes],
        count: int = 1,
    ) -> None:
        self.kind = kind
        self.application = application
        self.chat = chat
        self.once = once
        self.rest = rest
        self.contents = contents
        self.count = count
        self.checked = 0
        self.seed: list[int] | None = None
        self.place = self.before = 0

    @property
    def is_plain(self) -> bool:
        """Whether it is a post like any other, of which nothing has to be known but its messages."""
        return self.kind == facts.POST and self.once is None and self.seed is None and len(self.contents) == 1


class _Together:
    """Plain posts to one chat in a call: one change, for which the script does as much as for one message."""

    __slots__ = ("content", "counts", "place")

    def __init__(self, place: int) -> None:
        self.place = place
        self.counts = [0]
        self.content = bytearray()

    def take(self, asked: Asked) -> bool:
        """Take a post in, unless there is no room in its piece."""
        [content] = asked.contents
        [count] = self.counts
        if count and (count + asked.count > PIECE_MESSAGES or len(self.content) + len(content) > PIECE_BYTES):
            return False
        asked.place, asked.before = self.place, count
        self.counts[0] = count + asked.count
        self.content += content
        return True


def pack(changes: Sequence[Asked]) -> list[bytes]:
    """The arguments of append.lua: what it decides on, and the contents that it only copies."""
    heads: list[list[Any]] = []
    contents: list[bytes | bytearray] = []
    posts: dict[tuple[ApplicationId, int], _Together] = {}
    for asked in changes:
        if asked.is_plain:
            chat = asked.application, asked.chat
            together = posts.get(chat)
            if together is None or not together.take(asked):
                together = posts[chat] = _Together(len(heads))
                together.take(asked)
                heads.append([facts.POST, asked.application, asked.chat, together.counts])
                contents.append(together.content)
        else:
            asked.place, asked.before = len(heads), 0
            heads.append(_head(asked))
            contents += asked.contents
            if (once := asked.once) is not None:
                contents.append(facts.encode(facts.KeyContent(once.key, once.fingerprint, asked.count, once.kept_s)))
    return [facts.encode((heads, list(map(len, contents)))), b"".join(contents)]


def _head(asked: Asked) -> list[Any]:
    once = asked.once
    head: list[Any] = [asked.kind, asked.application, asked.chat, asked.rest]
    if once is not None or asked.seed is not None:
        head.append(asked.seed or False)
    if once is not None:
        head += once.key.hex(), once.fingerprint.hex(), (once.kept_s or 0) * 1000, asked.checked
    return head


def weigh(asked: Asked) -> int:
    """About how many bytes recording it takes in Redis, and so how long."""
    return sum(map(len, asked.contents)) + CHANGE_BYTES


def unpack(packed: bytes, changes: Sequence[Asked]) -> Sequence[Any]:
    """What became of each change: its receipt, or a code and what goes with it; None when Redis knows no epoch."""
    if not packed:
        return [None] * len(changes)
    answers = _decode(packed)
    found: list[Any] = []
    accepted = 0
    for asked in changes:
        answer, before = answers[asked.place], asked.before
        if answer[0] != RECORDED:
            found.append(answer)
            continue
        is_replayed = len(answer) > REPLAYED
        count = answer[4] if is_replayed else asked.count
        found.append(Receipt(answer[1] + before, answer[2] + before, answer[3], count, replayed=is_replayed))
        if asked.kind == facts.POST and not is_replayed:
            accepted += count
    if accepted:
        ACCEPTED.inc(accepted)
    return found


def posting(application: ApplicationId, change: PostMessages, once: Once | None) -> Asked:
    """Messages on their way into the journal, before they have a number."""
    messages = change.messages
    count = len(messages)
    if count == 1 and change.sent_at is None:
        return Asked(facts.POST, application, change.chat, once, [1], [facts.encode(_content(messages[0]))])
    times: Iterable[int | None] = repeat(None) if change.sent_at is None else change.sent_at
    asked = Asked(facts.POST, application, change.chat, once, [], [], count)
    # Spelled out as `_content` has it: a call for each message would cost as much as the rest of it.
    contents = [
        (new.sender, new.body, None if new.metadata is None else encode_metadata(new.metadata), sent_at)
        for new, sent_at in zip(messages, times, strict=False)
    ]
    _take_contents(asked, contents)
    return asked


def _content(new: NewMessage) -> tuple[Any, ...]:
    """The fields of a `facts.MessageContent`."""
    return new.sender, new.body, None if new.metadata is None else encode_metadata(new.metadata), None


def _take_contents(asked: Asked, contents: list[tuple[Any, ...]]) -> None:
    """Encode contents in one go, or in two when they are too much for one piece."""
    count = len(contents)
    packed = facts.encode(contents)
    if count > 1 and (count > PIECE_MESSAGES or len(packed) > PIECE_BYTES):
        _take_contents(asked, contents[: count // 2])
        _take_contents(asked, contents[count // 2 :])
    else:
        asked.rest.append(count)
        # Without what makes them an array: they may stand in a longer one.
        asked.contents.append(packed[_ARRAY_BYTES_SHORT if count < _ARRAY_SHORT else _ARRAY_BYTES :])
