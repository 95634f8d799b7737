"""URIs: which are allowed, how they are written, and the file system behind each."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, cast

import fsspec
from fsspec.spec import AbstractFileSystem

from dalle2_train.errors import InputError
from dalle2_train.redaction import redact

# What is not listed might run a shell (pipe:), log in somewhere (ssh:), or hide one URL in another (simplecache::).
_LOCAL_SCHEMES = ("file", "local")
_S3_SCHEMES = ("s3", "s3a")
_HTTP_SCHEMES = ("http", "https")
_SCHEMES = (
    *_LOCAL_SCHEMES,
    *_S3_SCHEMES,
    "gs",
    "gcs",
    "az",
    "abfs",
    "abfss",
    *_HTTP_SCHEMES,
    "hdfs",
    "memory",
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9_+.-]+):")
_ALLOWED = "use a path, or a URI of " + ", ".join(f"{name}:" for name in _SCHEMES)

# Seconds. A server that says nothing for so long is tried again, by `retry`.
_CONNECT_TIMEOUT, _READ_TIMEOUT = 10, 30


def scheme(uri: str) -> str:
    """What stands before the colon; "" of a plain path."""
    found = _SCHEME.match(uri)
    return found[1] if found else ""


def absolute(uri: str | os.PathLike[str]) -> str:
    """`uri` as it may be handed to another process: a plain path or `file:` URI becomes an absolute plain path.

    A scheme that is not allowed, or a chain of URIs: InputError.
    """
    uri = os.fspath(uri)
    if not uri:
        raise InputError("an empty path was given where a folder or URI is needed")
    name = scheme(uri)
    if "::" in uri:
        raise InputError(f"{redact(uri)}: chained URIs are refused; {_ALLOWED}")
    if name and name not in _SCHEMES:
        told = redact(uri)
        raise InputError(
            f"{told}: the scheme {name}: is refused; {_ALLOWED} (a file of that name is ./{told})"
        )
    if not name or name in _LOCAL_SCHEMES:
        path = uri[len(name) + 1 :] if name else uri
        if name and path.startswith("//"):
            path = "/" + path.lstrip("/")
        return os.path.abspath(os.path.expanduser(path))
    return uri.rstrip("/")


def local_path(uri: str) -> Path | None:
    """The `Path` of a local URI, None for a remote one."""
    resolved = absolute(uri)
    # What is absolute now is a path, even where a folder's name looks like a scheme.
    return Path(resolved) if resolved.startswith("/") else None


def join(uri: str, *parts: str) -> str:
    """`uri/part/part`, absolute."""
    return "/".join([absolute(uri).rstrip("/"), *(part.strip("/") for part in parts)])


def parent(uri: str) -> str:
    """The folder that `uri` lies in, absolute."""
    return absolute(uri).rpartition("/")[0] or "/"


def can_list(uri: str) -> bool:
    """Does the storage of `uri` tell which files there are? A web server does not."""
    return scheme(absolute(uri)) not in _HTTP_SCHEMES


def open_fs(uri: str) -> tuple[AbstractFileSystem, str]:
    """The file system of `uri` and the path in it. Its package is missing: InputError."""
    resolved = absolute(uri)
    try:
        fs, path = fsspec.core.url_to_fs(resolved, **_options(scheme(resolved)))
    except (ImportError, ValueError) as error:
        raise InputError(redact(f"{uri}: cannot be opened: {error}")) from error
    if scheme(resolved) in _S3_SCHEMES:
        cast(Any, fs).retries = 1  # ours are enough
    return cast(AbstractFileSystem, fs), path


def full_uri(folder: str, path: str, name: str) -> str:
    """The URI of the file that the file system of `folder`, whose path in it is `path`, calls `name`.

    What a file system makes of a URI may lack its host or account.
    """
    return absolute(folder) + name[len(path.rstrip("/")) :]


def _options(name: str) -> dict[str, Any]:
    if name in _S3_SCHEMES:
        # Endpoint, region and credentials are botocore's to find. A kept listing would hide what others publish.
        timeouts = {"connect_timeout": _CONNECT_TIMEOUT, "read_timeout": _READ_TIMEOUT}
        retries = {"mode": "standard", "total_max_attempts": 2}
        return {"use_listings_cache": False, "config_kwargs": {**timeouts, "retries": retries}}
    if name in _HTTP_SCHEMES:
        import aiohttp  # half a second that only those pay who use it

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT, sock_read=_READ_TIMEOUT)
        return {"client_kwargs": {"timeout": timeout}}
    return {}
