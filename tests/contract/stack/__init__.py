"""The rooms of the stack house, one by one."""
