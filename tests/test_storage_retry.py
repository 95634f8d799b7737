"""Which errors pass and which stay, as the libraries that raise them make them."""

import errno
import logging
from itertools import count

import aiohttp
import botocore.exceptions
import pytest
from s3fs.errors import translate_boto_error
from yarl import URL

from dalle2_train import storage
from dalle2_train.errors import InputError
from dalle2_train.storage import retry


def of_s3(code: str, status: int) -> Exception:
    """What s3fs raises when a server answers so."""
    response = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(botocore.exceptions.ClientError(response, "GetObject"))


def of_http(status: int) -> aiohttp.ClientResponseError:
    url = URL("http://host/x")
    headers: aiohttp.typedefs.CIMultiDictProxy = {}
    return aiohttp.ClientResponseError(aiohttp.RequestInfo(url, "GET", headers, url), (), status=status)


def caused(error: Exception, cause: Exception) -> Exception:
    """`error`, which was raised because of `cause`."""
    error.__cause__ = cause
    return error


def hidden(cause: Exception) -> Exception:
    """fsspec's HTTP file system calls whatever goes wrong with `info` a missing file."""
    return caused(FileNotFoundError("http://host/x"), cause)


PASSING = [
    ConnectionResetError("reset by peer"),
    ConnectionRefusedError("refused"),
    TimeoutError(),
    OSError(errno.ESTALE, "stale handle"),
    of_s3("InternalError", 500),
    of_s3("ServiceUnavailable", 503),
    of_s3("SlowDown", 503),
    of_s3("RequestTimeout", 400),
    of_s3("BadGateway", 502),
    of_s3("NoSuchUpload", 404),
    botocore.exceptions.EndpointConnectionError(endpoint_url="http://host"),
    botocore.exceptions.ReadTimeoutError(endpoint_url="http://host"),
    botocore.exceptions.ConnectTimeoutError(endpoint_url="http://host"),
    botocore.exceptions.ConnectionClosedError(endpoint_url="http://host"),
    aiohttp.ServerDisconnectedError(),
    aiohttp.ClientPayloadError("not enough data"),
    aiohttp.ServerTimeoutError(),
    caused(aiohttp.ClientPayloadError("cut off"), aiohttp.http_exceptions.ContentLengthError("too short")),
    of_http(429),
    of_http(503),
    hidden(of_http(500)),
    hidden(aiohttp.ServerDisconnectedError()),
]
STAYING = [
    (FileNotFoundError("x"), storage.MissingError),
    (of_s3("NoSuchKey", 404), storage.MissingError),
    (hidden(of_http(404)), storage.MissingError),
    (of_http(410), storage.MissingError),
    (of_s3("AccessDenied", 403), storage.RefusedAccessError),
    (of_http(401), storage.RefusedAccessError),
    (hidden(of_http(403)), storage.RefusedAccessError),
    (botocore.exceptions.NoCredentialsError(), storage.RefusedAccessError),
    (NotImplementedError(), InputError),
    (InputError("x"), InputError),
    (of_s3("ExpiredToken", 400), storage.RefusedAccessError),
    (of_s3("InvalidArgument", 400), OSError),
    (OSError(errno.ENOSPC, "no space"), OSError),
    (ValueError("our own"), ValueError),
]


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Pauses of a millisecond, a budget of a fifth of a second."""
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(retry, "_LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(retry, "RETRY_SECONDS", 0.2)


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_passes_is_tried_again(error: Exception):
    attempts = count()

    def attempt() -> str:
        if next(attempts) < 3:
            raise error
        return "done"

    assert retry.patiently("s3://b/k", attempt) == "done"


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_does_not_pass_in_time_is_told_and_is_no_missing_file(error: Exception):
    def attempt() -> None:
        raise error

    with pytest.raises(storage.UnreachableError, match="s3://b/k") as told:
        retry.patiently("s3://b/k", attempt)
    assert not isinstance(told.value, FileNotFoundError)


@pytest.mark.parametrize(("error", "kind"), STAYING, ids=repr)
def test_what_stays_is_told_at_once(error: Exception, kind: type[Exception]):
    attempts = count()

    def attempt() -> None:
        next(attempts)
        raise error

    with pytest.raises(kind) as told:
        retry.patiently("s3://b/k", attempt)
    assert next(attempts) == 1
    assert not isinstance(told.value, storage.UnreachableError)


@pytest.mark.parametrize(
    "kind", [ConnectionResetError, PermissionError, FileNotFoundError, NotImplementedError], ids=repr
)
def test_no_message_tells_a_password_or_a_signature(kind: type[Exception], caplog):
    caplog.set_level(logging.WARNING)
    retry._last_line = 0.0
    uri = "https://user:hunter2@host/x.tar?sig=hunter2"

    def attempt() -> None:
        raise kind(f"at {uri}")

    with pytest.raises((InputError, OSError)) as told:
        retry.patiently(uri, attempt)
    assert str(told.value).startswith("https://***@host/x.tar?***: ")
    assert "hunter2" not in f"{told.value} {caplog.text}"
    assert caplog.text == "" or "at https://***@host/x.tar?***; trying again" in caplog.text


def test_many_failures_are_one_line(caplog):
    caplog.set_level(logging.WARNING)
    retry._last_line = 0.0
    attempts = count()

    def attempt() -> None:
        if next(attempts) % 4:
            raise ConnectionResetError("reset by peer")

    for _ in range(10):
        next(attempts)
        retry.patiently("s3://b/k", attempt)
    assert len(caplog.records) == 1
    assert "s3://b/k: ConnectionResetError: reset by peer; trying again" in caplog.text
