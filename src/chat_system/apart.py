"""Work in a process of its own, so that what it has to import goes from memory with it.

The parent says what is to be done, and is answered what went wrong, or nothing. A defect shows its traceback on
standard error. A child whose parent has died, or waits no more, ends at once, in the middle of what it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable

STDIN = 0

END = b"\0"
"""Of what a parent says: a file's name may have any character but this."""


def run(module: str, task: str) -> str:
    """Have `python -m module` do a task; its answer, which is empty when it has done so.

    Raises:
        ChildProcessError: it ended without having answered.
    """
    return _converse(_start(module), task)


async def run_in_background(module: str, task: str) -> str:
    """The same while the loop goes on. When this is cancelled, the child is killed."""
    process = _start(module)
    try:
        return await asyncio.to_thread(_converse, process, task)
    except BaseException:
        process.kill()
        raise


def python() -> list[str]:
    """How to run a module of ours: like the command, which imports nothing of the folder in which it is called.

    With `python -m` this process does, and may have been found there itself.
    """
    return [sys.executable] if sys.modules["__main__"].__spec__ else [sys.executable, "-P"]


def obey(work: Callable[[str], str | None]) -> None:
    """In the child: do what the parent says, and answer what comes of it."""
    sys.stdout.buffer.write(os.fsencode(work(os.fsdecode(told(lambda: os._exit(1)))) or ""))


def told(when_orphaned: Callable[[], None]) -> bytes:
    """In the child: what the parent says. What it shall do when the parent has died happens in a thread."""
    # Read without a buffer, which a thread that waits for more would hold when the interpreter wants to end.
    said = b""
    while not said.endswith(END):
        piece = os.read(STDIN, 65536)
        if not piece:
            sys.exit()
        said += piece

    def watch() -> None:
        os.read(STDIN, 1)
        when_orphaned()

    threading.Thread(target=watch, daemon=True).start()
    return said.removesuffix(END)


def _start(module: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - a module of ours; what callers sent is no part of it
        [*python(), "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        # Ctrl-C is for the parent, which then waits no more.
        process_group=0,
    )


def _converse(process: subprocess.Popen[bytes], task: str) -> str:
    with process:
        try:
            assert process.stdin is not None  # noqa: S101 - these are pipes, as was asked for above
            assert process.stdout is not None  # noqa: S101
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(os.fsencode(task) + END)
            # To the end: standard input stays open until then, for that it ends is how the child knows of our death.
            said = process.stdout.read()
            code = process.wait()
        except BaseException:
            process.kill()
            raise
    if code:
        raise ChildProcessError(f"the process that did it ended with code {code}")
    return os.fsdecode(said)
