"""Work in a process of its own: what it is told and answers, and that neither process outlives the other's interest."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chat_system.apart import run, run_in_background
from tests.eventually import eventually

CHILD = """
import os, pathlib, time
from chat_system.apart import obey

def work(task):
    if task == "raise":
        raise RuntimeError("a defect")
    if task == "die":
        os.kill(os.getpid(), 9)
    if task == "wait":
        pathlib.Path("child").write_text(f"{os.getpid()} ")
        time.sleep(60)
    return task

obey(work)
"""
PARENT = "from chat_system.apart import run; run('child_of_a_test', 'wait')"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the child's module is found, and where it writes its process id."""
    (tmp_path / "child_of_a_test.py").write_text(CHILD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_what_lies_in_the_folder_is_not_taken_for_a_part_of_the_program(folder: Path) -> None:
    """The command, as it is installed, imports nothing of where it is called; no more does a child of it."""
    (folder / "logging.py").write_text("raise SystemExit('not to be imported')")
    command = Path(sys.executable).with_name("chat-system")
    environment = os.environ | {"PYTHONPATH": "", "CHAT_SQLITE_PATH": str(folder / "new.sqlite3")}
    ended = subprocess.run([command, "migrate"], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


async def begun(folder: Path) -> int:
    """The id of the child that waits, once it has said so."""
    file = folder / "child"

    async def has_said() -> bool:
        return file.exists() and file.read_text().endswith(" ")

    await eventually(has_said, True)
    return int(file.read_text())


def state(pid: int) -> str:
    """The kernel's letter for what a process does; Z when it has ended, or is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


async def end_of(pid: int) -> None:
    """Wait until a process has ended."""
    await eventually(lambda: asyncio.to_thread(state, pid), "Z")


@pytest.mark.parametrize("task", ["", "two\nlines", "ünï", os.fsdecode(b"no text \xff")])
async def test_a_task_and_its_answer_arrive_as_they_are(task: str) -> None:
    """Also a file's name that is no text or has an end of line in it."""
    assert run("child_of_a_test", task) == task
    assert await run_in_background("child_of_a_test", task) == task


@pytest.mark.parametrize(("task", "code"), [("raise", "1"), ("die", "-9")])
def test_a_child_that_ends_without_an_answer_has_not_done_its_work(
    task: str, code: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A defect's traceback is there to be read, and nothing passes for success."""
    with pytest.raises(ChildProcessError, match=f"code {code}"):
        run("child_of_a_test", task)
    assert ("a defect" in capfd.readouterr().err) is (task == "raise")


async def test_a_child_that_is_waited_for_no_more_ends(folder: Path) -> None:
    """Control-C while it works."""
    waiting = asyncio.create_task(run_in_background("child_of_a_test", "wait"))
    child = await begun(folder)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await end_of(child)


async def test_a_child_does_not_outlive_its_parent(folder: Path) -> None:
    """Whatever killed that: another may take its place at once, and must not find two at work."""
    parent = await asyncio.to_thread(subprocess.Popen, [sys.executable, "-c", PARENT])
    child = await begun(folder)
    parent.kill()
    await asyncio.to_thread(parent.wait)
    await end_of(child)
