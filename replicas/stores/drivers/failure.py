"""What it means when a driver raises something."""

import errno
import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

from ...errors import Absent, Denied, SourceError, Stalled, Unreachable, Unsupported
from ...location import redact, scheme
from ...model import Location

log = logging.getLogger(__name__)

T = TypeVar("T")
_UNUSABLE = (ImportError, AttributeError, NameError)  # of a driver whose library is not there
_NUMBERS = {errno.EPERM: Denied, errno.EACCES: Denied, errno.ETIMEDOUT: Stalled}


def asking(location: Location, do: Callable[[], T]) -> T:
    """What `do` returns; whatever a driver raises becomes a child of SourceError."""
    try:
        return do()
    except Exception as error:  # drivers raise what their libraries raise
        raise _failure(location, error) from error


def _failure(location: Location, error: Exception) -> SourceError:
    """Only "not found" is Absent. The text is the error's kind: its own words may hold credentials."""
    whole = list(_chain(error))
    text = f"{redact(location.url)}: {' after '.join(type(cause).__name__ for cause in whole)}"
    if isinstance(error, _UNUSABLE):
        text += f", the driver of {scheme(location.url)} cannot work here: is the library it needs installed?"
    log.debug("image %s: %s", location.image_id, text, exc_info=error)
    return _kind(whole)(text)


def _kind(whole: list[BaseException]) -> type[SourceError]:
    """By glance_store's error, and where it tells little by the number behind it: of the system, or of HTTP."""
    from glance_store import exceptions
    from keystoneauth1.exceptions import ConnectTimeout

    error = whole[0]
    numbers = _values(whole, "errno")
    kinds: tuple[tuple[type[SourceError], tuple[type[Exception], ...]], ...] = (
        (Absent, (exceptions.NotFound,)),
        (Denied, (exceptions.Forbidden, exceptions.NotAuthenticated, exceptions.AuthorizationFailure)),
        (Unsupported, (exceptions.UnknownScheme, exceptions.StoreGetNotSupported, exceptions.BadStoreUri)),
        (Unsupported, _UNUSABLE),
        (Stalled, (exceptions.TimeoutError,)),
    )
    for kind, causes in kinds:
        if isinstance(error, causes):
            return kind
    if {401, 403} & {*_values(whole, "http_status"), *_values(whole, "code")}:
        return Denied
    if any(isinstance(cause, ConnectTimeout) for cause in whole):
        return Stalled
    if numbers:
        return next((_NUMBERS[number] for number in numbers if number in _NUMBERS), Unreachable)
    # Without such a number: with one, a driver says it of a place that it could not ask.
    return Unsupported if isinstance(error, exceptions.BadStoreConfiguration) else Unreachable


def _values(whole: list[BaseException], name: str) -> list[int]:
    """What the errors have under this name, if it is a number."""
    found = [getattr(cause, name, None) for cause in whole]
    return [status for status in found if isinstance(status, int)]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and those it was raised because of."""
    at: BaseException | None = error
    while at is not None:
        yield at
        at = at.__cause__ or at.__context__
