"""MariaDB, small: for tests that need real transactions and real loss of connections, not speed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.servers.process import LOG_TAIL_CHARACTERS, Server, ServerDidNotStart

PASSWORD = "a secret: with/odd@characters"
PASSWORD_IN_URL = "a%20secret%3A%20with%2Fodd%40characters"
PREPARE_TIMEOUT_S = 60
ANSWER_TIMEOUT_S = 5
GREETING_PROTOCOL = 10

# Run at every start, before anyone is let in.
ACCOUNT = f"""
CREATE USER IF NOT EXISTS chat@'%' IDENTIFIED BY '{PASSWORD}';
GRANT ALL ON *.* TO chat@'%';
"""


class MariaDBServer(Server):
    """mariadbd with buffers of a few MiB; every commit is on disk when it returns.

    The account `chat` may do everything, also make databases.
    """

    name = "MariaDB"

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self.options: Sequence[str] = options
        """More arguments of mariadbd; they may be changed between two starts."""

    @classmethod
    def is_installed(cls) -> bool:
        return all(shutil.which(program) for program in ("mariadbd", "mariadb-install-db"))

    @property
    def url(self) -> str:
        """Without a database: whoever uses the server makes one."""
        return f"mysql://chat:{PASSWORD_IN_URL}@127.0.0.1:{self.port}"

    def prepare(self) -> None:
        made = subprocess.run(
            [
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={self.data}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--force",  # on machines whose own name can't be looked up
                "--innodb-log-file-size=16M",
                *self._user(),
            ],
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PREPARE_TIMEOUT_S,
            check=False,
        )
        if made.returncode:
            raise ServerDidNotStart(f"{self!r} could not be prepared:\n{made.stdout[-LOG_TAIL_CHARACTERS:]}")
        (self.folder / "account.sql").write_text(ACCOUNT)

    def command(self) -> list[str]:
        return [
            "mariadbd",
            "--no-defaults",
            *self._user(),
            f"--datadir={self.data}",
            f"--socket={self.folder / 'sock'}",
            f"--pid-file={self.folder / 'pid'}",
            f"--init-file={self.folder / 'account.sql'}",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            "--skip-name-resolve",
            "--max-connections=300",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=16M",
            "--key-buffer-size=1M",
            "--aria-pagecache-buffer-size=1M",
            "--performance-schema=OFF",
            *self.options,
        ]

    def environment(self) -> dict[str, str]:
        # Its temporary tables are named after its process: in a place that is everybody's, two meet now and then.
        return super().environment() | {"TMPDIR": str(self.folder)}

    def version(self) -> str:
        return greeting("127.0.0.1", self.port)

    @staticmethod
    def _user() -> list[str]:
        return ["--user=root"] if os.geteuid() == 0 else []


def greeting(host: str, port: int) -> str:
    """The version that a MariaDB or MySQL tells whoever connects.

    Raises:
        OSError: nobody listens there.
        ValueError: it lets nobody in now.
    """
    with socket.create_connection((host, port), ANSWER_TIMEOUT_S) as connection:
        packet = connection.recv(256)
    # Four bytes of frame, the protocol's version, the server's version as text that ends with a zero.
    if len(packet) < 6 or packet[4] != GREETING_PROTOCOL:
        raise ValueError("it lets nobody in")
    # MariaDB calls itself 5.5.5 first, for replicas of long ago.
    return packet[5 : packet.index(0, 5)].decode().removeprefix("5.5.5-")
