"""A container's health check: `python -m chat_system.web.probe http://127.0.0.1:8080/health/live`.

Ends with 0 if the answer is 200, else with 1; what was answered goes to standard output, where `docker inspect` shows
it. It imports little, as it runs every few seconds.
"""

from __future__ import annotations

import sys
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

TIMEOUT_S = 4.0


def main(url: str) -> int:
    """Ask once; the exit code."""
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", address.path)
        response = connection.getresponse()
        said = response.read().decode("utf-8", "replace")
    except (OSError, HTTPException) as error:
        sys.stdout.write(f"{error!r}\n")
        return 1
    sys.stdout.write(f"{said}\n")
    return 0 if response.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
