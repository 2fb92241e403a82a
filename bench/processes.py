"""Child processes of the benchmark, and what the kernel says about them.

Every process that is started here is stopped here, by its own id, whatever happens in between. Linux
only: memory and CPU time come from /proc.

Not promised: that a free port stays free until the child binds it.
"""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from bench.measure import Wrong

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
POLL_INTERVAL_S = 0.002
LOG_LINES_SHOWN = 15

REST_INTERVAL_S = 0.15
REST_CPU_S = 0.011
"""A process rests when an interval passes with at most one tick (10 ms) of CPU time."""

MIB = 1024.0


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def allow_many_sockets() -> None:
    """Raise this process's limit of open files to what the system grants; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Child:
    """One running child process, with its log in a file."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        self.started_at = time.perf_counter()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                arguments,
                cwd=folder,
                env=dict(environment) if environment is not None else None,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.pid = self._process.pid

    def wait_until(self, ready: Callable[[], bool]) -> float:
        """Poll until `ready`, and return the seconds since the process was started.

        Raises:
            Wrong: the process ended, or START_TIMEOUT_S passed.
        """
        while not ready():
            if self._process.poll() is not None:
                raise Wrong(f"a process ended with code {self._process.returncode}:\n{self.log_tail()}")
            if self.age_s() > START_TIMEOUT_S:
                raise Wrong(f"a process was not ready in {START_TIMEOUT_S:.0f} s:\n{self.log_tail()}")
            time.sleep(POLL_INTERVAL_S)
        return self.age_s()

    def age_s(self) -> float:
        """Seconds since the process was started."""
        return time.perf_counter() - self.started_at

    def run_to_end(self, timeout_s: float) -> tuple[float, float]:
        """Wait for the process to end well; its seconds, and the most memory it held, in MiB.

        Raises:
            Wrong: it ended with another code than 0, or did not end in time.
        """
        peak = 0.0
        while self._process.poll() is None:
            # Not the parent's ru_maxrss: that one begins with the memory of the process that forked.
            peak = max(peak, self.peak_mib())
            if self.age_s() > timeout_s:
                self.stop()
                raise Wrong(f"a process did not end in {timeout_s:.0f} s:\n{self.log_tail()}")
            time.sleep(POLL_INTERVAL_S * 5)
        seconds = self.age_s()
        if self._process.returncode != 0:
            raise Wrong(f"a process ended with code {self._process.returncode}:\n{self.log_tail()}")
        return seconds, peak

    def stop(self) -> None:
        """End the process: ask, and after STOP_TIMEOUT_S insist. Harmless when it has ended."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(STOP_TIMEOUT_S)

    def log_tail(self) -> str:
        """The last lines that the process printed."""
        lines = self.log.read_text("utf-8", errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES_SHOWN:])

    def resident_mib(self) -> float:
        """Memory that the process holds now (VmRSS), in MiB."""
        return self._status("VmRSS")

    def peak_mib(self) -> float:
        """The most memory that the process held so far (VmHWM), in MiB."""
        return self._status("VmHWM")

    def cpu_s(self) -> float:
        """CPU time that the process used so far, all threads, user and system."""
        return _cpu_s(_stat(Path(f"/proc/{self.pid}")))

    def _status(self, name: str) -> float:
        try:
            text = Path(f"/proc/{self.pid}/status").read_text("utf-8", errors="replace")
        except FileNotFoundError:
            return 0.0
        # A process that has ended but was not yet waited for shows no memory.
        line = next((line for line in text.splitlines() if line.startswith(name + ":")), "0: 0")
        return int(line.split()[1]) / MIB


def group_cpu_s(group: int) -> float:
    """CPU time that the living processes of a process group used so far."""
    used = 0.0
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                fields = _stat(process)
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == group:
                used += _cpu_s(fields)
    return used


def _stat(process: Path) -> list[str]:
    """What follows the name in a process's `stat`."""
    return (process / "stat").read_text("ascii", errors="replace").rpartition(")")[2].split()


def _cpu_s(fields: Sequence[str]) -> float:
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Working(Protocol):
    """Something that uses CPU time when it works."""

    def cpu_s(self) -> float:
        """CPU time that it used so far."""


def wait_for_rest(children: Sequence[Working], timeout_s: float) -> float:
    """Wait until no child works in the background any more; the seconds that took.

    Raises:
        Wrong: one of them still worked after `timeout_s`.
    """
    started_at = time.perf_counter()
    before = [child.cpu_s() for child in children]
    while True:
        time.sleep(REST_INTERVAL_S)
        after = [child.cpu_s() for child in children]
        if all(new - old <= REST_CPU_S for new, old in zip(after, before, strict=True)):
            return time.perf_counter() - started_at - REST_INTERVAL_S
        if time.perf_counter() - started_at > timeout_s:
            raise Wrong(f"a server still worked in the background after {timeout_s:.0f} s")
        before = after
