"""How changes are put to append.lua, and its answers read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from chat_system.model import ApplicationId, Once, PostMessages, encode_metadata
from chat_system.stack import facts

RECORDED, COLD, ERASED, MISMATCH, STALE, ASK = range(6)
"""What append.lua answers to a change."""

_decode = msgspec.msgpack.Decoder(list[list[Any]]).decode


class Asked:
    """A change on its way to append.lua."""

    __slots__ = ("application", "chat", "checked", "contents", "kind", "once", "rest", "seed")

    def __init__(
        self,
        kind: int,
        application: ApplicationId,
        chat: int,
        once: Once | None,
        rest: list[int],
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
        if once is None:
            key, fingerprint, kept_s = "", "", 0
        else:
            key, fingerprint, kept_s = once.key.hex(), once.fingerprint.hex(), (once.kept_s or 0) * 1000
            count = asked.rest[0] if asked.kind == facts.POST else 1
            contents.append(facts.encode(facts.KeyContent(once.key, once.fingerprint, count, once.kept_s)))
        heads.append(
            [
                *(asked.kind, asked.application, asked.chat, key, fingerprint, kept_s),
                *(asked.checked, asked.seed or False, *asked.rest),
            ]
        )
    return [facts.encode(heads), *contents]


def unpack(packed: bytes, count: int) -> Sequence[Any]:
    """What became of each change: a code and what goes with it; None for all when Redis knows no epoch."""
    return _decode(packed) if packed else [None] * count


def contents(change: PostMessages) -> list[bytes]:
    """Messages as they go into the journal, before they have a number."""
    times: Sequence[int | None] = change.sent_at or [None] * len(change.messages)
    return [
        facts.encode(facts.MessageContent(new.sender, new.body, encode_metadata(new.metadata), sent_at))
        for new, sent_at in zip(change.messages, times, strict=True)
    ]
