"""A file that is imported, read block by block: gzipped or not, from a disk or a pipe.

Memory stays bounded whatever the file is: a line without an end is cut off at LINE_MAX_BYTES and a compressed
block is unpacked in pieces. Waiting for a pipe holds up nobody else, and Ctrl-C ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import zlib
from collections.abc import AsyncIterator, Iterator

from chat_system.transfer.lines import LINE_MAX_BYTES, TransferError

STDIN = "-"
READ_BYTES = 64 * 1024
UNPACKED_BYTES = 128 * 1024
"""How much of a file is taken at a time: a few hundred messages."""

_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 31
"""zlib's word for gzip's format, its header and checksums included."""


class Source:
    """An open file of lines. `bytes_read` goes up to `bytes_total`, which is None for what is piped in."""

    def __init__(self, name: str, raw: io.FileIO) -> None:
        self.name = name
        self.bytes_total = _bytes_left(raw)
        self.bytes_read = 0
        self._raw = raw
        self._may_wait = not raw.seekable()

    async def blocks(self) -> AsyncIterator[list[tuple[int, bytes | None]]]:
        """The lines with their numbers from 1 on, some at a time; None is one that is longer than LINE_MAX_BYTES.

        Raises:
            TransferError: the file can't be read further.
        """
        number, rest, cut = 1, b"", False
        async for piece in self._pieces():
            lines: list[bytes | None] = [*(rest + piece).split(b"\n")]
            rest = lines.pop() or b""
            if lines and cut:
                lines[0] = None
                cut = False
            if len(rest) > LINE_MAX_BYTES:
                rest, cut = b"", True
            yield [(number + index, _bounded(line)) for index, line in enumerate(lines)]
            number += len(lines)
        if rest or cut:
            yield [(number, None if cut else rest)]

    async def _pieces(self) -> AsyncIterator[bytes]:
        try:
            start = await self._read()
            while len(start) < len(_GZIP) and (more := await self._read()):
                start += more
            pieces = self._unpacked(start) if start.startswith(_GZIP) else self._plain(start)
            async for piece in pieces:
                yield piece
        except zlib.error as error:
            raise TransferError(f"{self.name} is damaged: {error}.") from error
        except OSError as error:
            raise _unreadable(self.name, error) from error

    async def _plain(self, start: bytes) -> AsyncIterator[bytes]:
        while start:
            yield start
            start = await self._read()

    async def _unpacked(self, packed: bytes) -> AsyncIterator[bytes]:
        unpacker, fresh = zlib.decompressobj(_GZIP_WINDOW), True
        while packed or (packed := await self._read()):
            # Between members of a file there may be zeros, which fill up a tape.
            packed = packed.lstrip(b"\0") if fresh else packed
            fresh = fresh and not packed
            if piece := unpacker.decompress(packed, UNPACKED_BYTES):
                yield piece
            packed = unpacker.unconsumed_tail
            if unpacker.eof:
                packed = unpacker.unused_data
                unpacker, fresh = zlib.decompressobj(_GZIP_WINDOW), True
        if not fresh:
            yield unpacker.flush()
            if not unpacker.eof:
                raise TransferError(f"{self.name} is damaged: its compressed data end too early.")

    async def _read(self) -> bytes:
        if self._may_wait:
            await self._readable()
        piece = self._raw.read(READ_BYTES) or b""
        self.bytes_read += len(piece)
        return piece

    async def _readable(self) -> None:
        """Wait for a pipe without holding up what is being recorded meanwhile."""
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        # Some devices can't be waited for: reading from them waits instead.
        with contextlib.suppress(PermissionError):
            loop.add_reader(self._raw, ready.set_result, None)
            try:
                await ready
            finally:
                loop.remove_reader(self._raw)


@contextlib.contextmanager
def open_source(file: str) -> Iterator[Source]:
    """Open a file, or standard input for `-`; gzip is known by its first bytes.

    Raises:
        TransferError: it can't be opened.
    """
    name = "Standard input" if file == STDIN else file
    try:
        raw = io.FileIO(0, closefd=False) if file == STDIN else io.FileIO(file)
    except OSError as error:
        raise _unreadable(name, error) from error
    with raw:
        yield Source(name, raw)


def _bounded(line: bytes | None) -> bytes | None:
    return None if line is None or len(line) > LINE_MAX_BYTES else line


def _bytes_left(raw: io.FileIO) -> int | None:
    if not raw.seekable():
        return None
    start = raw.tell()
    size = raw.seek(0, io.SEEK_END) - start
    raw.seek(start)
    return size or None


def _unreadable(name: str, error: OSError) -> TransferError:
    return TransferError(f"{name} can't be read: {error.strerror or error}.")
