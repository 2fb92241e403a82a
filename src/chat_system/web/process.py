"""One of several processes that answer on one port: `python -m chat_system.web.process`, started by their parent.

Its settings are the first line of its standard input; when that is closed, the parent has died, and it ends in order.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

import msgspec

from chat_system import telemetry
from chat_system.errors import ConfigurationError
from chat_system.settings import Settings
from chat_system.web.listening import share
from chat_system.web.processes import EXIT_REFUSED
from chat_system.web.server import answer

STDIN = 0


def main() -> None:
    """Answer until the parent says to end."""
    settings = msgspec.json.decode(_first_line(), type=Settings)
    telemetry.configure_logging(settings.log_level, settings.log_format)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        answer(settings, share(settings))
    except ConfigurationError as error:
        sys.stdout.write(str(error))
        sys.exit(EXIT_REFUSED)


def _first_line() -> bytes:
    # Read without a buffer, which a thread that waits for more would hold when the interpreter wants to end.
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(STDIN, 65536)
        if not piece:
            sys.exit()
        line += piece
    return line


def _end_with_the_parent() -> None:
    os.read(STDIN, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
