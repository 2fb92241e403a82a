"""One of several processes that answer on one port: `python -m chat_system.web.process`, started by their parent.

Its settings come on its standard input; when that is closed, the parent has died, and it ends in order.
"""

from __future__ import annotations

import os
import signal
import sys

import msgspec

from chat_system import telemetry
from chat_system.apart import told
from chat_system.errors import ConfigurationError
from chat_system.settings import Settings
from chat_system.web.listening import share
from chat_system.web.processes import EXIT_REFUSED
from chat_system.web.server import answer


def main() -> None:
    """Answer until the parent says to end."""
    settings = msgspec.json.decode(told(_end), type=Settings)
    telemetry.configure_logging(settings.log_level, settings.log_format)
    try:
        answer(settings, share(settings))
    except ConfigurationError as error:
        sys.stdout.write(str(error))
        sys.exit(EXIT_REFUSED)


def _end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
