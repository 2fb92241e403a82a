"""How changes are put to append.lua, and its answers read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from chat_system.model import ApplicationId, Once, PostMessages, encode_metadata
from chat_system.stack import facts

RECORDED, COLD, ERASED, MISMATCH, STALE, ASK = range(6)
"""What append.lua answers to a change."""

FACT_BYTES = 256
"""What a fact costs beside its content."""

_decode = msgspec.msgpack.Decoder(list[list[Any]]).decode


class Asked:
    """A change on its way to append.lua.

    `rest` is what its kind needs to be decided: of a post, how many messages; see append.lua for the others.
    """

    __slots__ = ("application", "chat", "checked", "contents", "kind", "once", "rest", "seed")

    def __init__(
        self,
        kind: int,
        application: ApplicationId,
        chat: int,
        once: Once | None,
        rest: int | list[int],
        contents: list[bytes],
    ) -> None:
        self.kind = kind
        self.application = application
        self.chat = chat
        self.once = once
        self.rest = rest
        self.contents = contents
        self.checked = 0
        self.seed: list[int] | None = None


def pack(changes: Sequence[Asked]) -> list[bytes]:
    """The arguments of append.lua: what it decides on, and the contents that it only copies."""
    heads: list[list[Any]] = []
    contents: list[bytes] = []
    for asked in changes:
        once = asked.once
        contents += asked.contents
        head: list[Any] = [asked.kind, asked.application, asked.chat, asked.rest]
        heads.append(head)
        if once is not None or asked.seed is not None:
            head.append(asked.seed or False)
        if once is not None:
            head += once.key.hex(), once.fingerprint.hex(), (once.kept_s or 0) * 1000, asked.checked
            count = asked.rest if isinstance(asked.rest, int) else 1
            contents.append(facts.encode(facts.KeyContent(once.key, once.fingerprint, count, once.kept_s)))
    return [facts.encode(heads), *contents]


def weigh(asked: Asked) -> int:
    """About how many bytes recording it takes in Redis, and so how long."""
    return sum(map(len, asked.contents)) + FACT_BYTES * len(asked.contents)


def unpack(packed: bytes, changes: Sequence[Asked]) -> Sequence[Any]:
    """What became of each change: a code and what goes with it; None for all when Redis knows no epoch."""
    return _decode(packed) if packed else [None] * len(changes)


def contents(change: PostMessages) -> list[bytes]:
    """Messages as they go into the journal, before they have a number."""
    times: Sequence[int | None] = change.sent_at or [None] * len(change.messages)
    return [
        facts.encode(facts.MessageContent(new.sender, new.body, encode_metadata(new.metadata), sent_at))
        for new, sent_at in zip(change.messages, times, strict=True)
    ]
