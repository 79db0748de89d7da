"""Location URLs encrypted as Glance does with `metadata_encryption_key` (glance/common/crypt.py).

AES-CBC under a random IV; the URL ends at the last NUL, what follows is padding without one; all in URL-safe
base64. There is no authentication: a wrong key shows only in that the result is no URL.
"""

import base64
import os
import secrets

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from ..errors import ConfigError
from ..location import scheme

_BLOCK = 16  # bytes
_KEY_LENGTHS = (16, 24, 32)  # bytes


def check_key(key: str) -> str:
    """The key itself. Raises ConfigError when AES cannot take it."""
    if len(key.encode()) not in _KEY_LENGTHS:
        raise ConfigError("metadata_encryption_key must be 16, 24 or 32 bytes long")
    return key


def encrypt(key: str, url: str) -> str:
    """The URL as Glance would store it; another text each time."""
    text = url.encode() + b"\0"
    padding = bytes(secrets.randbelow(255) + 1 for _ in range(-len(text) % _BLOCK))
    start = os.urandom(_BLOCK)
    running = Cipher(AES(key.encode()), CBC(start)).encryptor()
    return base64.urlsafe_b64encode(start + running.update(text + padding) + running.finalize()).decode("ascii")


def decrypt(key: str, stored: str) -> str:
    """The URL in a stored text. Raises ValueError for anything that was not encrypted with this key."""
    blob = base64.urlsafe_b64decode(stored.encode())
    running = Cipher(AES(key.encode()), CBC(blob[:_BLOCK])).decryptor()
    padded = running.update(blob[_BLOCK:]) + running.finalize()
    url = padded[: max(padded.rfind(b"\0"), 0)].decode("utf-8")
    if not scheme(url):
        raise ValueError("decrypted to something that is no URL")
    return url
