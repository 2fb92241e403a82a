"""`python -m chat_system` is `chat-system`."""

from chat_system.cli import main

main()
