"""Who runs this program, as the record of an order names them."""

import getpass
import os
import socket


def who() -> str:
    """Who gives the order, for the record."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        name = str(os.getuid())
    behind = os.environ.get("SUDO_USER")
    return f"{name}@{socket.gethostname()}" + (f" (sudo by {behind})" if behind else "")
