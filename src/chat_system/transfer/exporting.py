"""Writes an application as lines that `import` reads back: the same messages, in the same order.

Chats come by number, tombstones are left out, and so is a chat without messages. It is read page by page beside
a running server: what is posted meanwhile may or may not be in it.
"""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import IO, cast

from chat_system.model import NAME_MAX_CHARACTERS, ApplicationId, Chat
from chat_system.system import ChatSystem
from chat_system.transfer.lines import TransferError, WrittenLine, write

COMPRESSION = 6
"""gzip's own default. 9 takes twice as long and saves one part in a hundred."""

_DIGEST_BYTES = 16


async def export(system: ChatSystem, application: ApplicationId, output: IO[bytes]) -> int:
    """Write every message of an application; return how many there were.

    Raises:
        OSError: the output takes no more.
    """
    names = ChatNames()
    count, number, name = 0, 0, ""
    async for chat, messages in system.export(application):
        if chat.number != number:
            number, name = chat.number, names.name(chat)
        output.writelines(
            write(WrittenLine(name, message.sender, message.created_at, message.body or "", message.metadata))
            for message in messages
        )
        count += len(messages)
    return count


class ChatNames:
    """Gives each chat a name of its own, so that an import keeps apart what has the same title.

    A chat's name depends on it and those before it only: a later export names it the same.
    """

    def __init__(self) -> None:
        self._taken: set[bytes] = set()

    def name(self, chat: Chat) -> str:
        """The title; without one "chat 7"; where that is taken, with " (7)" behind it."""
        name = chat.title or f"chat {chat.number}"
        ending = f" ({chat.number})"
        while not self._take(name):
            name = name[: NAME_MAX_CHARACTERS - len(ending)] + ending
            ending += f" ({chat.number})"
        return name

    def _take(self, name: str) -> bool:
        # Digests: names of 255 characters by the hundred thousand would fill the memory.
        digest = blake2b(name.encode(), digest_size=_DIGEST_BYTES).digest()
        taken = digest in self._taken
        self._taken.add(digest)
        return not taken


@contextmanager
def open_output(file: str | None) -> Iterator[IO[bytes]]:
    """Standard output, or a file: gzipped if its name ends in .gz, and under that name when it is complete.

    Raises:
        TransferError: it can't be opened, written or completed.
    """
    try:
        if file is None:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        else:
            with _completed(Path(file)) as plain:
                if file.endswith(".gz"):
                    # No name and time inside: the same messages make the same file.
                    with gzip.GzipFile("", "wb", COMPRESSION, plain, mtime=0) as packed:
                        yield cast(IO[bytes], packed)
                else:
                    yield plain
    except BrokenPipeError as error:
        raise TransferError("Whoever read the output has gone: it is not complete.") from error
    except OSError as error:
        name = file or "Standard output"
        raise TransferError(f"{name} can't be written: {error.strerror or error}.") from error


@contextmanager
def _completed(path: Path) -> Iterator[IO[bytes]]:
    if path.exists() and not path.is_file():
        # A device or a pipe, which has no name of its own when it is looked up: there is nothing to complete.
        with path.open("wb") as file:
            yield file
        return
    path = path.resolve()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            if path.exists():
                # Who has hidden an earlier export from others has hidden this one.
                part.chmod(path.stat().st_mode & 0o777)
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
