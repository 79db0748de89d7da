"""One host: what it does with its own copies, and whose its directory and its URL are among the others."""
