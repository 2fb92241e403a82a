"""The messages that the benchmark posts and imports: real ones where there are any, repeated with variation.

A corpus begins with the lines of its file, shuffled, so that any part of it is like any other: a page costs
what its bytes cost, and two databases compare only when theirs are alike. Past the end it goes on with new
bodies, each half of one real message and half of another, so that an index gets no easier work than real text
gives, at the same length on average. The same index gives the same message, always.

Not promised: sense, neither in a body past the first round nor in their order.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from bench.measure import Wrong

GENERATED_LINES = 5_000
BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)
STRIDE = 7_919
"""A prime, so that the second half of a mixed body comes from all over the file."""


class Line(msgspec.Struct, frozen=True):
    """One message."""

    sender: str
    body: str


class ImportedLine(msgspec.Struct, frozen=True):
    """One message as `chat-system import` reads it."""

    chat: str
    sender: str
    sent_at: str
    body: str


class Corpus:
    """An endless, repeatable sequence of messages."""

    def __init__(self, lines: Sequence[Line], source: str) -> None:
        self.lines = lines
        self.source = source

    @classmethod
    def open(cls, path: Path) -> Corpus:
        """The messages of an NDJSON file, gzipped or not, with the keys `sender` and `body`.

        Raises:
            Wrong: the file holds no such messages.
        """
        try:
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            lines = msgspec.json.Decoder(Line).decode_lines(content)
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            raise Wrong(f"{path}: {error}") from error
        if not lines:
            raise Wrong(f"{path} holds no message")
        random.Random(1).shuffle(lines)
        return cls(lines, path.name)

    @classmethod
    def generated(cls) -> Corpus:
        """Made-up messages, for where no file is at hand: words of letters with the lengths of real chat."""
        dice = random.Random(1)
        letters = "etaoinshrdlucmfwypvbgkqjxz"
        weights = [1 / (rank + 2) for rank in range(len(letters))]
        words = ["".join(dice.choices(letters, weights, k=dice.randint(1, 9))) for _ in range(3_000)]
        lines = [
            Line(
                dice.choice(words),
                " ".join(dice.choices(words, k=max(1, int(dice.lognormvariate(2.0, 0.8))))),
            )
            for _ in range(GENERATED_LINES)
        ]
        return cls(lines, "generated")

    def message(self, index: int) -> Line:
        """The message at an index from 0 on."""
        count = len(self.lines)
        first = self.lines[index % count]
        if index < count:
            return first
        second = self.lines[(index * STRIDE + index // count) % count]
        front, back = first.body, second.body
        return Line(first.sender, front[: (len(front) + 1) // 2] + back[len(back) // 2 :])

    def messages(self, start: int, count: int) -> Iterator[Line]:
        """A run of messages."""
        return (self.message(index) for index in range(start, start + count))

    def write_import_file(self, path: Path, chats: Sequence[tuple[str, int]]) -> None:
        """Write a gzipped NDJSON file of chats with so many messages each, a second between two of them."""
        encode = msgspec.json.Encoder().encode
        index = 0
        with gzip.open(path, "wb", compresslevel=1) as file:
            for chat, count in chats:
                for line in self.messages(index, count):
                    sent_at = (BEGINNING + timedelta(seconds=index)).strftime("%Y-%m-%dT%H:%M:%SZ")
                    file.write(encode(ImportedLine(chat, line.sender, sent_at, line.body)) + b"\n")
                    index += 1


def read_import_file(path: Path) -> list[ImportedLine]:
    """The messages of a file that `write_import_file` wrote."""
    return msgspec.json.Decoder(ImportedLine).decode_lines(gzip.decompress(path.read_bytes()))
