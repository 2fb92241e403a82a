"""The HTTP face: one table of operations, an ASGI app that serves it, and the document that describes it."""
