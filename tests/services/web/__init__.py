"""Web servers: one with faults, a proxy with faults, nginx."""
