"""`chat-system`: the operator's commands. What goes wrong is one clear line and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys

import typer

from chat_system import telemetry
from chat_system.errors import ChatSystemError, ConfigurationError
from chat_system.settings import Settings

cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="A chat backend.")


def _settings() -> Settings:
    settings = Settings.from_environment(os.environ)
    telemetry.configure_logging(settings.log_level, settings.log_format)
    return settings


@cli.callback()
def callback() -> None:
    pass


@cli.command()
def serve() -> None:
    """Serve the API."""
    from chat_system.web.server import serve as run

    run(_settings())


def main() -> None:
    """The entry point of `chat-system` and `python -m chat_system`."""
    try:
        cli(standalone_mode=True)
    except (ConfigurationError, ChatSystemError) as error:
        print(f"chat-system: {error}", file=sys.stderr)
        sys.exit(1)
