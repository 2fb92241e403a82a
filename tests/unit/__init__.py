"""The parts alone: what is acceptable, what is refused, and the machinery that needs no server."""
