"""What asks Glance's own code in this process, stands before it, or hangs on it: its private names are used here."""
