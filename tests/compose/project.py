"""compose.yaml as a project of the test's own: its name, its port on loopback, its volumes.

    with running_project() as project:          # docker compose up --build --wait
        project.kill("mysql")                   # as a crash would
        project.up("mysql")                     # start it again, wait until it is healthy
        project.down(); project.up()            # containers go, volumes stay

At the end containers, networks and volumes are removed; the images stay. What the services logged is kept for the
report of a failed test.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.process import free_port

ROOT = Path(__file__).parents[2]
COMMAND_TIMEOUT_S = 900
HEALTHY_WITHIN_S = 400
LOG_LINES = 60

SERVERS = ("mysql", "redis", "elasticsearch")
OURS = ("api", "worker")
SERVICES = SERVERS + OURS


def engine_answers() -> bool:
    """Whether there is a Docker engine with compose."""
    try:
        asked = [["docker", "version"], ["docker", "compose", "version"]]
        return all(subprocess.run(one, capture_output=True, timeout=30, check=False).returncode == 0 for one in asked)
    except (OSError, subprocess.TimeoutExpired):
        return False


class Project:
    """One project. Not promised: two at the same time in one process."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._name = f"chat-system-test-{os.getpid()}"
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}
        self._environment["CHAT_PORT"] = str(self.port)

    def up(self, *arguments: str, **variables: str) -> None:
        """`docker compose up`, in the background, until everything named (else everything) is healthy."""
        waiting = ("--detach", "--wait", "--wait-timeout", str(HEALTHY_WITHIN_S))
        self._environment |= variables
        self._compose("up", *waiting, *arguments)

    def down(self) -> None:
        """Containers and networks go, volumes stay."""
        self._compose("down")

    def remove(self) -> None:
        """Everything goes, volumes too."""
        self._compose("down", "--volumes", "--remove-orphans")

    def kill(self, service: str) -> None:
        """End all containers of a service as a crash would; they are not started again by themselves."""
        self._compose("kill", service)

    def kill_container(self, container: str) -> None:
        """End one container as a crash would."""
        subprocess.run(["docker", "kill", container], check=True, capture_output=True, timeout=60)

    def execute(self, service: str, *command: str) -> str:
        """What a command prints inside a container of a service."""
        return self._compose("exec", "--no-TTY", service, *command)

    def containers(self, service: str) -> list[str]:
        """The ids of a service's containers."""
        return self._compose("ps", "--quiet", service).split()

    def published(self) -> dict[str, str]:
        """What each service shows to the host, of those that show anything."""
        lines = self._compose("ps", "--format", "{{.Service}}|{{.Ports}}").splitlines()
        shown = {service: ports for service, _, ports in (line.partition("|") for line in lines)}
        return {service: ports for service, ports in shown.items() if "->" in ports}

    def shell(self, script: str, folder: Path) -> str:
        """What shell lines print, in which `docker compose` is this project; they run in a folder of their own."""
        here = {"COMPOSE_PROJECT_NAME": self._name, "COMPOSE_FILE": str(ROOT / "compose.yaml")}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env=self._environment | here,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def log(self) -> str:
        """The last of what everything logged."""
        return self._compose("logs", "--no-color", "--tail", str(LOG_LINES))

    def _compose(self, *arguments: str) -> str:
        command = ["docker", "compose", "--project-name", self._name, *arguments]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@contextmanager
def running_project() -> Iterator[Project]:
    """A project inside the block, built from the sources as they are."""
    project = Project()
    try:
        project.up("--build")
        yield project
    finally:
        project.remove()
