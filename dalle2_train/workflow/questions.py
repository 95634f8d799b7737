"""What a stage is asked of what it reads: who changes it gets another answer."""

from dalle2_train.data.shards.freshness import check_fresh
from dalle2_train.data.stream.summary import summarize


def data_digest(uri: str) -> str:
    """The identity of the set or mixture at `uri`. Errors: InputError where shards are not what their manifest says."""
    found = summarize(uri)
    for shards in found.sets:
        check_fresh(shards)
    return found.digest
