"""The embedded house: one process, one SQLite file, nothing to install beside Python."""
