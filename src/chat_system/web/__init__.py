"""The HTTP face: one table of operations, the connections that serve it, and the document that describes it."""
