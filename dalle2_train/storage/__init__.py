"""The one door to files: fsspec URIs are read, listed, and written so that a reader sees a whole file or none.

A URI is a string; a plain path is a local file and is made absolute, because workers change directory. What fails
in passing is tried again for `retry.RETRY_SECONDS`.
"""

from dalle2_train.storage.exclusive import publish_new, rename
from dalle2_train.storage.listing import Stat, exists, glob, list_files, list_folder, size, stat, stats
from dalle2_train.storage.places import absolute, can_list, join, local_path, parent
from dalle2_train.storage.reading import (
    as_local,
    download,
    download_tree,
    open_read,
    read_bytes,
    read_json,
    sha256_bytes,
    sha256_file,
)
from dalle2_train.storage.retry import MissingError, RefusedAccessError, UnreachableError
from dalle2_train.storage.scratch import Scratch
from dalle2_train.storage.staging import local_staging
from dalle2_train.storage.writing import (
    check_could_write,
    check_writable,
    publish_bytes,
    publish_file,
    publish_json,
    remove,
    sweep,
)

__all__ = [
    "MissingError",
    "RefusedAccessError",
    "Scratch",
    "Stat",
    "UnreachableError",
    "absolute",
    "as_local",
    "can_list",
    "check_could_write",
    "check_writable",
    "download",
    "download_tree",
    "exists",
    "glob",
    "join",
    "list_files",
    "list_folder",
    "local_path",
    "local_staging",
    "open_read",
    "parent",
    "publish_bytes",
    "publish_file",
    "publish_json",
    "publish_new",
    "read_bytes",
    "read_json",
    "remove",
    "rename",
    "sha256_bytes",
    "sha256_file",
    "size",
    "stat",
    "stats",
    "sweep",
]
