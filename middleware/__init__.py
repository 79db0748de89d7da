"""The three paste filters: server, cache and api."""
