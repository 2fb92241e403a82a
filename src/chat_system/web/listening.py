"""The socket that the server listens on."""

from __future__ import annotations

import errno
import socket

from chat_system.errors import ConfigurationError
from chat_system.settings import Settings

BACKLOG_CONNECTIONS = 2048


def listen(settings: Settings) -> socket.socket:
    """A socket that listens where the settings say, and shares its port with no one.

    Raises:
        ConfigurationError: the port is taken, or the address is not ours.
    """
    listening = _bind(settings, shared=False)
    try:
        # At once: of two that start at the same moment, the second must find the port taken.
        listening.listen(BACKLOG_CONNECTIONS)
    except OSError as error:
        listening.close()
        raise _refusal(settings, error) from error
    return listening


def share(settings: Settings) -> socket.socket:
    """A socket that is bound where the settings say, beside others made by this function, and does not listen yet.

    The kernel deals new connections out to those of them that listen.

    Raises:
        ConfigurationError: another server has the port, or the address is not ours.
    """
    return _bind(settings, shared=True)


def _bind(settings: Settings, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((settings.host, settings.port))
    except (OSError, UnicodeError) as error:
        bound.close()
        raise _refusal(settings, error) from error
    return bound


def _refusal(settings: Settings, error: OSError | UnicodeError) -> ConfigurationError:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return ConfigurationError(
            f"Port {settings.port} on {settings.host} is in use. Set CHAT_PORT to another, or to 0 for a free one."
        )
    return ConfigurationError(f"Can't listen on {settings.host}:{settings.port}: {error}.")
