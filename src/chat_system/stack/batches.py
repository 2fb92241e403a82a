"""What the projections are handed: the facts of whole stream entries, unpacked by columns.

An object for each fact costs about as much time as MySQL needs for its row. So messages and counts stay the tuples
that a decoder makes of a whole field. Who nevertheless wants single entries, because one of them can't be applied, gets
them: they are made when they are first asked for.

Not promised: that every stream entry can be had so. One that holds what can't be read, or that another consumer has
applied in part, is taken apart by `consuming` at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import overload

import msgspec

from chat_system.model import ApplicationId, MessageChanged
from chat_system.ports import Entry
from chat_system.stack import facts

MESSAGES, COUNTS = b"m", b"n"
"""The kinds of facts that come in numbers."""

Head = tuple[int, ApplicationId, int, int, int, int]
"""The fields of a `facts.Head`."""

Said = tuple[str | None, str | None, bytes | None, int | None]
"""The fields of a `facts.MessageContent`."""

Message = tuple[Head, Said]
Run = tuple[Head, list[Said]]
"""The fields of a `facts.Run`."""

Count = tuple[Head, None]

_decode_runs = msgspec.msgpack.Decoder(list[Run]).decode
_decode_counts = msgspec.msgpack.Decoder(list[Count]).decode


class Flush:
    """A stream entry of which facts are held: how many are left, how many count, and about what they weigh."""

    __slots__ = (
        "counts",
        "facts",
        "fields",
        "identifier",
        "left",
        "messages",
        "only_messages",
        "others",
        "partition",
        "prefix",
        "size",
    )

    def __init__(
        self, partition: int, identifier: str, fields: Sequence[bytes], *, only_messages: bool = False
    ) -> None:
        self.partition = partition
        self.identifier = identifier
        self.prefix = f"{partition}/{identifier}/"
        self.fields = fields
        self.only_messages = only_messages
        self.facts = 0
        self.left = 0
        self.size = 0
        self.messages: list[Message] = []
        self.counts: list[Count] = []
        self.others: list[Entry] = []

    def kinds(self) -> Iterator[tuple[bytes, bytes]]:
        """Its fields but the time: a kind of facts, and all facts of this kind."""
        return zip(self.fields[2::2], self.fields[3::2], strict=True)

    def unpack(self) -> bool:
        """Take its facts by columns; False when one of them is not as it should be."""
        try:
            for kind, packed in self.kinds():
                if kind == MESSAGES:
                    for run in _decode_runs(packed):
                        self.messages += _messages(run)
                elif self.only_messages:
                    continue
                elif kind == COUNTS:
                    self.counts += _decode_counts(packed)
                else:
                    places = facts.read(kind, packed)
                    self.others += _entries(self.prefix, places)
                self.size += len(packed)
        except (*facts.UNREADABLE, _TakeApart):
            return False
        self.facts = self.left = len(self.messages) + len(self.counts) + len(self.others)
        return True

    def entries(self) -> list[Entry]:
        """All facts of a stream entry that could be unpacked, each with its own position."""
        entries: list[Entry] = []
        first = 1
        for kind, packed in self.kinds():
            if self.only_messages and kind != MESSAGES:
                first += facts.size(packed)
                continue
            places = facts.read(kind, packed)
            entries += _entries(self.prefix, places, first)
            first += len(places)
        return entries


class _TakeApart(Exception):
    """A fact can't be read."""


def _messages(run: Run) -> Sequence[Message]:
    """A run's messages, each with a head of its own."""
    head, contents = run
    if len(contents) == 1:
        return [(head, contents[0])]
    kind, application, chat, number, revision, at = head
    return [
        ((kind, application, chat, number + index, revision + index, at), said) for index, said in enumerate(contents)
    ]


def _entries(prefix: str, places: Sequence[facts.Place | facts.Unreadable], first: int = 0) -> Iterator[Entry]:
    for index, place in enumerate(places, first):
        if isinstance(place, facts.Unreadable):
            raise _TakeApart
        yield Entry(f"{prefix}{index}", *place)


class Batch(Sequence[Entry]):
    """Whole stream entries, and single entries of others. As a sequence: all their facts, those of a chat in order."""

    def __init__(self, flushes: Sequence[Flush], singles: Sequence[Entry] = ()) -> None:
        self.flushes = flushes
        self.singles = singles
        self._length = len(singles) + sum(flush.left for flush in flushes)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        return self._entries[index]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    @cached_property
    def _entries(self) -> list[Entry]:
        return sorted(chain(self.singles, *(flush.entries() for flush in self.flushes)), key=in_order)

    @cached_property
    def messages(self) -> list[Message]:
        """What its stream entries say of messages."""
        return list(chain.from_iterable(flush.messages for flush in self.flushes))

    @cached_property
    def heads(self) -> list[Head]:
        """The heads of these."""
        return [head for head, _ in self.messages]

    @cached_property
    def counts(self) -> list[Count]:
        """And of how many a chat has."""
        return list(chain.from_iterable(flush.counts for flush in self.flushes))

    @cached_property
    def others(self) -> list[Entry]:
        """Everything else. Where it stands in its stream entry is not among it."""
        return list(chain(self.singles, *(flush.others for flush in self.flushes)))

    def positions(self) -> Iterator[str]:
        """Where its facts stand, as far as their partition and epoch."""
        yield from (flush.prefix for flush in self.flushes)
        yield from (entry.position for entry in self.singles)

    def applications(self) -> set[ApplicationId]:
        """Whose facts they are."""
        return {
            *map(itemgetter(1), self.heads),
            *(head[1] for head, _ in self.counts),
            *(entry.application for entry in self.others),
        }


def in_order(entry: Entry) -> tuple[int, int, int, int]:
    """What entries are sorted by: those of a chat by number."""
    fact = entry.fact
    if type(fact) is MessageChanged:
        return entry.application, entry.chat, fact.number, fact.revision
    return entry.application, entry.chat, 0, 0
