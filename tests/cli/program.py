"""`chat-system` as a process, with a folder of its own and nothing of the caller's CHAT_* environment."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from chat_system import cli, telemetry

TIMEOUT_S = 60.0
POLL_INTERVAL_S = 0.01


@dataclass(frozen=True)
class Ended:
    """What a command left: its exit code and what it wrote."""

    code: int
    output: bytes
    errors: str

    @property
    def text(self) -> str:
        """Standard output, without the end of its last line."""
        return self.output.decode().rstrip("\n")

    @property
    def lines(self) -> list[str]:
        """The lines on standard error."""
        return self.errors.splitlines()

    def refusal(self, code: int = 1) -> str:
        """The one line on standard error of a command that failed with this code, and wrote nothing else."""
        assert self.code == code, self
        assert len(self.lines) == 1, self
        return self.lines[0]


@dataclass(frozen=True)
class Program:
    """The installed program over one folder; its database is `chat.sqlite3` in there."""

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def database(self) -> Path:
        """The database file."""
        return self.folder / "chat.sqlite3"

    def run(self, *arguments: str, given: bytes = b"", **settings: str) -> Ended:
        """Run a command to its end. It must not show a traceback, whatever happens."""
        ended = subprocess.run(
            [sys.executable, "-m", "chat_system", *arguments],
            env=self.environment(**settings),
            cwd=self.folder,
            input=given,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        found = Ended(ended.returncode, ended.stdout, ended.stderr.decode())
        assert "Traceback" not in found.errors, found.errors
        return found

    def succeed(self, *arguments: str, given: bytes = b"", **settings: str) -> Ended:
        """The same for a command that must succeed."""
        ended = self.run(*arguments, given=given, **settings)
        assert ended.code == 0, ended
        return ended

    def imported(self, file: str) -> Path:
        """The database file after an import."""
        self.succeed("import", file)
        return self.database

    @property
    def token(self) -> str:
        """The token of the only application."""
        with self.rows() as rows:
            [(token,)] = rows.execute("SELECT token FROM applications").fetchall()
        return str(token)

    def environment(self, **settings: str) -> dict[str, str]:
        """The whole environment of the process; settings are named without their CHAT_."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}
        named = {f"CHAT_{name.upper()}": value for name, value in ({**self.settings, **settings}).items()}
        return inherited | named | {"COLUMNS": "120", "NO_COLOR": "1"}

    def interrupt(self, number: signal.Signals, given: bytes, messages: int, *arguments: str) -> Ended:
        """Run a command that reads standard input, and signal it while it waits for more than is given.

        Not before the database holds so many messages.
        """
        # Where the tests run in a shell's background, SIGINT is ignored, and a process would inherit that.
        ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "chat_system", *arguments],
                env=self.environment(),
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        finally:
            signal.signal(signal.SIGINT, ignored)
        with process:
            assert process.stdin is not None
            process.stdin.write(given)
            process.stdin.flush()
            try:
                deadline = time.monotonic() + TIMEOUT_S
                while self.messages() < messages:
                    assert process.poll() is None, "it ended although its input had not"
                    assert time.monotonic() < deadline, f"{messages} messages never came"
                    time.sleep(POLL_INTERVAL_S)
                process.send_signal(number)
                code = process.wait(TIMEOUT_S)
            finally:
                process.kill()
            output, errors = process.communicate(timeout=TIMEOUT_S)
            return Ended(code, output, errors.decode())

    @contextlib.contextmanager
    def rows(self) -> Iterator[sqlite3.Connection]:
        """The database itself, to look into or to damage; what was done is kept."""
        connection = sqlite3.connect(self.database)
        with contextlib.closing(connection), connection:
            yield connection

    def messages(self) -> int:
        """How many messages the database holds; 0 while there is none."""
        if not self.database.exists():
            return 0
        try:
            with self.rows() as connection:
                return int(connection.execute("SELECT count(*) FROM messages").fetchone()[0])
        except sqlite3.OperationalError:
            # The tables are being made.
            return 0


@dataclass(frozen=True)
class Inside(Program):
    """The same program run in the tests' own process, which saves its start; for what imports nothing."""

    monkeypatch: pytest.MonkeyPatch = field(kw_only=True)
    capsys: pytest.CaptureFixture[str] = field(kw_only=True)

    def run(self, *arguments: str, given: bytes = b"", **settings: str) -> Ended:
        """Run a command to its end."""
        assert not given, "there is one standard input for all tests"
        with self.monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["chat-system", *arguments])
            patch.setattr(os, "environ", self.environment(**settings))
            # The tests' own logs stay as they are.
            patch.setattr(telemetry, "configure_logging", lambda *_: None)
            patch.chdir(self.folder)
            with pytest.raises(SystemExit) as ended:
                cli.main()
        shown = self.capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, shown.out.encode(), shown.err)
