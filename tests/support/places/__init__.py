"""Places of every kind that bytes may be in, sound and with every fault."""
