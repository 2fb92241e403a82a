"""Reading files of lines: every piece of every kind of file, with bounded memory."""

from __future__ import annotations

import asyncio
import gzip
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_system.transfer import source
from chat_system.transfer.lines import TransferError
from chat_system.transfer.source import open_source

Numbered = list[tuple[int, bytes | None]]


def lines_of(path: str) -> Numbered:
    """All lines of a file, as an import gets them."""

    async def read() -> Numbered:
        with open_source(path) as opened:
            return [line async for block in opened.blocks() for line in block]

    return asyncio.run(read())


def wanted(content: bytes, longest: int) -> Numbered:
    """The lines of the content, those that are too long replaced by None."""
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [(number, None if len(line) > longest else line) for number, line in enumerate(lines, 1)]


@given(
    st.lists(st.binary(max_size=40) | st.just(b"\n") | st.just(b"\0" * 9), max_size=12),
    st.sampled_from(["plain", "one member", "a member each", "members with zeros between"]),
    st.tuples(st.integers(2, 30), st.integers(1, 30), st.integers(1, 50)),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_is_read_as_its_lines_whatever_its_form(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parts: list[bytes],
    form: str,
    sizes: tuple[int, int, int],
) -> None:
    """Plain or gzipped, in one or many members, read in pieces of any size, with lines around the limit."""
    read, unpacked, longest = sizes
    monkeypatch.setattr(source, "READ_BYTES", read)
    monkeypatch.setattr(source, "UNPACKED_BYTES", unpacked)
    monkeypatch.setattr(source, "LINE_MAX_BYTES", longest)
    content = b"".join(parts)
    if form == "plain":
        content = content.removeprefix(b"\x1f\x8b")
    packed = {
        "plain": lambda: content,
        "one member": lambda: gzip.compress(content),
        "a member each": lambda: b"".join(map(gzip.compress, parts)),
        "members with zeros between": lambda: b"".join(gzip.compress(part) + b"\0" * 7 for part in parts),
    }[form]()
    path = tmp_path / "file"
    path.write_bytes(packed)
    assert lines_of(str(path)) == wanted(content, longest)


@pytest.mark.parametrize("cut", [3, 11, 200, -9, -8, -1])
def test_gzip_data_that_end_too_early_are_an_error(tmp_path: Path, cut: int) -> None:
    """In the header, in the data or in the checksum: a file that was cut off is never taken for a whole one."""
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(os.urandom(500))[:cut])
    with pytest.raises(TransferError, match=r"cut\.gz is damaged: its compressed data end too early\."):
        lines_of(str(path))


def test_gzip_data_that_were_changed_are_an_error(tmp_path: Path) -> None:
    """A wrong checksum is seen, and so is what follows the data without being any."""
    packed = gzip.compress(b"line\n" * 100)
    (tmp_path / "flipped.gz").write_bytes(packed[:-6] + bytes([packed[-6] ^ 1]) + packed[-5:])
    (tmp_path / "more.gz").write_bytes(packed + b"more")
    for name in ("flipped.gz", "more.gz"):
        with pytest.raises(TransferError, match=f"{name} is damaged: Error -3 while decompressing data"):
            lines_of(str(tmp_path / name))


def test_a_pipe_is_read_as_it_comes() -> None:
    """Byte by byte even, gzip's mark included; whoever shares the loop goes on meanwhile."""
    content = gzip.compress(b"first\nsecond")
    reading, writing = os.pipe()

    async def write() -> None:
        for index in range(len(content)):
            os.write(writing, content[index : index + 1])
            await asyncio.sleep(0)
        os.close(writing)

    async def read() -> Numbered:
        with open_source(f"/dev/fd/{reading}") as opened:
            written = asyncio.create_task(write())
            lines = [line async for block in opened.blocks() for line in block]
            await written
            return lines

    assert asyncio.run(read()) == [(1, b"first"), (2, b"second")]
    os.close(reading)


def test_how_far_a_file_was_read_is_told_in_its_own_bytes(tmp_path: Path) -> None:
    """Compressed bytes for a compressed file: that is what a progress bar goes by."""
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(b"line\n" * 100_000))

    async def read() -> tuple[int | None, int]:
        with open_source(str(path)) as opened:
            assert opened.bytes_read == 0
            async for _ in opened.blocks():
                pass
            return opened.bytes_total, opened.bytes_read

    size = path.stat().st_size
    assert asyncio.run(read()) == (size, size)


@pytest.mark.parametrize(("name", "reason"), [("missing", "No such file or directory"), (".", "Is a directory")])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    """The reason is the system's, with the name in front."""
    path = tmp_path / name
    with pytest.raises(TransferError, match=f"{path} can't be read: {reason}\\."), open_source(str(path)):
        pass
