"""The HTTP contract, proven black box over real connections against a real server process."""
