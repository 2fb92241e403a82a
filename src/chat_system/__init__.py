"""Chat System: a chat backend whose numbers have no gaps and whose acknowledgements are durable."""

__version__ = "0.1.0"
