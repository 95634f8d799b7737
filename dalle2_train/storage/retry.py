"""The one place where storage is tried again: which errors pass, how long to wait, and what is told in the end."""

from __future__ import annotations

import errno
import logging
import random
import ssl
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from dalle2_train.errors import InputError
from dalle2_train.redaction import redact

RETRY_SECONDS = 120.0
"""The budget: storage that fails for longer fails the run. Deadlines of a step must be longer."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
_SECONDS_BETWEEN_LINES = 5.0

_TRANSIENT_ERRNOS = {
    errno.EIO, errno.EREMOTEIO, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.EPIPE, errno.ETIMEDOUT,
    errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED,
}  # fmt: skip
_TRANSIENT_STATUSES = {408, 425, 429}
# S3 says some of what passes with a status of 400, and by 404 that an upload is over, whose end was not heard.
_TRANSIENT_CODES = {"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "SlowDown",
                    "Throttling", "ThrottlingException", "RequestLimitExceeded", "NoSuchUpload"}  # fmt: skip
# By name: the libraries are loaded only where their schemes are used.
_TRANSIENT_NAMES = {"ConnectionError", "ClientConnectionError", "ClientPayloadError", "HTTPClientError",
                    "ResponseParserError", "ResponseStreamingError", "IncompleteRead",
                    "IncompleteReadError"}  # fmt: skip
_REFUSED_NAMES = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"}

_log = logging.getLogger(__name__)
# Of its own: to draw from the global generator would change what others draw.
_jitter = random.Random()
_last_line = -_SECONDS_BETWEEN_LINES

T = TypeVar("T")


class MissingError(InputError):
    """There is no such file."""


class RefusedAccessError(InputError):
    """The storage does not let us."""


class UnreachableError(OSError):
    """Storage failed for longer than it is tried again; the file may well be there."""


def missing(uri: str) -> MissingError:
    """No such file, told with its name."""
    return MissingError(f"{redact(uri)}: no such file; check the path, or run the step that makes it")


def patiently(uri: str, attempt: Callable[[], T]) -> T:
    """What `attempt` returns, tried again with growing pauses for `RETRY_SECONDS` where it fails in passing.

    uri: what is read or written, for the messages, which leave its secrets out. Not there: MissingError. No leave:
    RefusedAccessError. Failing when the time is up: UnreachableError. Other errors are raised as they are.
    """
    began = time.monotonic()
    for pause in _pauses():
        try:
            return attempt()
        except Exception as error:
            if not is_transient(error):
                if (told := _permanent(uri, error)) is not None:
                    raise told from error
                raise
            left = RETRY_SECONDS - (time.monotonic() - began)
            if pause > left:
                raise UnreachableError(
                    f"{redact(uri)}: {_short(error)}; it was tried again for {RETRY_SECONDS:.0f} s"
                ) from error
            _say(f"{redact(uri)}: {_short(error)}; trying again for {left:.0f} s")
            time.sleep(pause)
    raise AssertionError("the pauses have no end")


def is_transient(error: BaseException | None) -> bool:
    """Is this an error that passes: a lost connection, a timeout, throttling, a server's own fault?"""
    if any(isinstance(one, InputError | ssl.SSLCertVerificationError) for one in _chain(error)):
        return False
    # The outer error says more than its cause: aiohttp calls a body that was cut off a fault with a 400 behind it.
    for one in _chain(error):
        if _is_of_the_connection(one) or _code(one) in _TRANSIENT_CODES:
            return True
        if (status := _status(one)) is not None:
            return status in _TRANSIENT_STATUSES or (status >= 500 and status != 501)
    return any(isinstance(one, OSError) and one.errno in _TRANSIENT_ERRNOS for one in _chain(error))


def http_status(error: BaseException | None) -> int | None:
    """The HTTP status behind an error, None where there is none."""
    return next((status for one in _chain(error) if (status := _status(one)) is not None), None)


def _is_of_the_connection(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    return any(kind.__name__ in _TRANSIENT_NAMES for kind in type(error).__mro__)


def _permanent(uri: str, error: BaseException) -> InputError | None:
    """What the user is told of an error that stays; None: nothing better than the error itself."""
    status = http_status(error)
    if status in (401, 403) or isinstance(error, PermissionError) or type(error).__name__ in _REFUSED_NAMES:
        return RefusedAccessError(
            f"{redact(uri)}: access is refused ({_short(error)}); check the credentials and permissions"
        )
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return missing(uri)
    if isinstance(error, NotImplementedError):
        return InputError(f"{redact(uri)}: this storage cannot do that; give another place")
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what caused it: fsspec hides a server's answer behind FileNotFoundError, s3fs behind OSError."""
    while error is not None:
        yield error
        error = error.__cause__


def _status(error: BaseException) -> int | None:
    """As botocore, aiohttp and gcsfs keep it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    for name in ("status", "code"):  # in this order: aiohttp warns of its `code`
        value = getattr(error, name, None)
        if isinstance(value, int) and 100 <= value < 600:
            return value
    return None


def _code(error: BaseException) -> str | None:
    response = getattr(error, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, dict) else None


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE
    while True:
        yield pause * _jitter.uniform(0.5, 1.5)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _short(error: BaseException) -> str:
    text = redact(str(error).strip().split("\n", 1)[0])[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _say(line: str) -> None:
    """A line in the log, but not one for each of the many reads that fail together."""
    global _last_line
    now = time.monotonic()
    if now - _last_line >= _SECONDS_BETWEEN_LINES:
        _last_line = now
        _log.warning(line)
