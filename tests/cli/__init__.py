"""The command line: every command as an operator runs it, and what it says when it can't be done."""
