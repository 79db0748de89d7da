"""Faults of the world. A fault of the data is a value (`verdict.Verdict`), never one of these."""


class ReplicaError(Exception):
    """Base of every error of this package; its text is one line fit for an operator."""


class ConfigError(ReplicaError):
    """An option, a file or an argument is wrong; the text names it and the remedy."""


class CatalogueError(ReplicaError):
    """Glance's database could not be asked. Says nothing about what is in it."""


class LedgerError(ReplicaError):
    """Our own tables could not be asked. Says nothing about what is in them."""


class CacheError(ReplicaError):
    """The cache directory could not be read or written (full, read-only, gone, I/O error)."""


class Unreadable(CacheError):
    """A file of the cache is there and its bytes cannot be had (denied, I/O error): they may be right or wrong."""


class Unwritable(ReplicaError):
    """A location could not be written; what it held before is still there."""


class Refused(ReplicaError):
    """The thing asked for would break a promise; the text says which and what to do instead."""


class LastCopy(Refused):
    """It is the last intact copy of an image that the ledger knows of."""


class ClientLeft(ReplicaError):
    """Whoever waited for bytes has closed the connection; nobody is to be answered."""


class Gone(Refused):
    """The image is deleted, which is final; "no such image" and "queued" may be the answer of a database behind."""


class SourceError(ReplicaError):
    """A location could not be read. The children tell why; "could not ask" is never "absent"."""


class Absent(SourceError):
    """The place answered, with authority, that it does not hold these bytes."""


class Denied(SourceError):
    """The place refused our credentials (401, 403)."""


class Unreachable(SourceError):
    """No usable answer: refused, timed out, 429, 5xx, broken off, I/O error."""


class Stalled(SourceError):
    """The place answered and then made no progress for longer than allowed."""


class Corrupt(SourceError):
    """Every byte arrived and their digest is not the image's."""


class Unsupported(SourceError):
    """Nothing here can read this kind of URL."""


class WrongAnswer(SourceError):
    """An answer that cannot be this image: other length, other range, a redirect, an encoded body."""
