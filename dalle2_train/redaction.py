"""What only its owner may know is left out of what is told: users and passwords in URIs, signed queries."""

import re

# A password may hold "@": the last one before the path ends it. A database's may hold "/" too, behind its user's ":",
# unless that is the one of "host:5000/" or "[::1]:5000/".
_USER_INFO = re.compile(r"(?<=://)(?:[^/\s]*|[^/\s:@\[]*:(?!\d*/)[^\s@]*)@")
# Of `?name=value&…` all goes, since every storage has its own names for a signature; a pattern's `?` stays.
_QUERY = re.compile(r"\?(?:[\w.~%+-]+&)*[\w.~%+-]+=[^\s'\"<>]*[^\s'\"<>.,:;)]")


def redact(text: str) -> str:
    """`text`, which may be a URI or quote some, with `***` in place of whoever stands before an "@", and of queries."""
    return _QUERY.sub("?***", _USER_INFO.sub("***@", text))


def without_passwords(text: str) -> str:
    """`text` without passwords and queries, but with the users' names: to tell places apart by, not to be told."""
    return _QUERY.sub("", _USER_INFO.sub(lambda found: found[0].partition(":")[0].rstrip("@") + "@", text))
