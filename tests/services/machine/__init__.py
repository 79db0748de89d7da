"""What a machine may be: its disk fails, its clock is wrong, its user is another one."""
