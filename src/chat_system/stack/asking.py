"""How changes are put to append.lua, and its answers read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from chat_system.model import ApplicationId, Once, PostMessages, Receipt, encode_metadata
from chat_system.stack import facts

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
    for the others. `place` is where in a call it went: which of the changes it is in, and behind how many messages.
    """

    __slots__ = ("application", "chat", "checked", "contents", "count", "kind", "once", "place", "rest", "seed")

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
        self.place = (0, 0)


def pack(changes: Sequence[Asked]) -> list[bytes]:
    """The arguments of append.lua: what it decides on, and the contents that it only copies.

    Plain posts to one chat become one change, for which the script does as much as for one message.
    """
    heads: list[list[Any]] = []
    contents: list[bytes] = []
    posts: dict[tuple[ApplicationId, int], list[Asked]] = {}
    for asked in changes:
        if asked.kind == facts.POST and asked.once is None and asked.seed is None:
            posts.setdefault((asked.application, asked.chat), []).append(asked)
            continue
        once = asked.once
        contents += asked.contents
        head: list[Any] = [asked.kind, asked.application, asked.chat, asked.rest]
        asked.place = (len(heads), 0)
        heads.append(head)
        if once is not None or asked.seed is not None:
            head.append(asked.seed or False)
        if once is not None:
            head += once.key.hex(), once.fingerprint.hex(), (once.kept_s or 0) * 1000, asked.checked
            contents.append(facts.encode(facts.KeyContent(once.key, once.fingerprint, asked.count, once.kept_s)))
    for (application, chat), together in posts.items():
        counts, pieces = _joined(together, len(heads))
        heads.append([facts.POST, application, chat, counts])
        contents += pieces
    return [facts.encode((heads, [len(content) for content in contents])), b"".join(contents)]


def _joined(posts: Sequence[Asked], place: int) -> tuple[list[int], list[bytes]]:
    """The contents of posts to one chat, in pieces that fit into a stream entry."""
    counts: list[int] = []
    pieces: list[list[bytes]] = []
    room_facts = room_bytes = before = 0
    for asked in posts:
        asked.place = (place, before)
        before += asked.count
        for count, content in zip(asked.rest, asked.contents, strict=True):
            if count > room_facts or len(content) > room_bytes:
                counts.append(0)
                pieces.append([])
                room_facts, room_bytes = PIECE_MESSAGES, PIECE_BYTES
            counts[-1] += count
            pieces[-1].append(content)
            room_facts -= count
            room_bytes -= len(content)
    return counts, [b"".join(piece) for piece in pieces]


def weigh(asked: Asked) -> int:
    """About how many bytes recording it takes in Redis, and so how long."""
    return sum(map(len, asked.contents)) + CHANGE_BYTES


def unpack(packed: bytes, changes: Sequence[Asked]) -> Sequence[Any]:
    """What became of each change: its receipt, or a code and what goes with it; None when Redis knows no epoch."""
    if not packed:
        return [None] * len(changes)
    answers = _decode(packed)
    found: list[Any] = []
    for asked in changes:
        place, before = asked.place
        answer = answers[place]
        if answer[0] == RECORDED:
            count = answer[4] if len(answer) > REPLAYED else asked.count
            found.append(
                Receipt(answer[1] + before, answer[2] + before, answer[3], count, replayed=len(answer) > REPLAYED)
            )
        else:
            found.append(answer)
    return found


def posting(application: ApplicationId, change: PostMessages, once: Once | None) -> Asked:
    """Messages on their way into the journal, before they have a number."""
    messages = change.messages
    times: Sequence[int | None] = change.sent_at or [None] * len(messages)
    contents = [
        (new.sender, new.body, None if new.metadata is None else encode_metadata(new.metadata), sent_at)
        for new, sent_at in zip(messages, times, strict=True)
    ]
    asked = Asked(facts.POST, application, change.chat, once, [], [], len(contents))
    _take_contents(asked, contents)
    return asked


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
