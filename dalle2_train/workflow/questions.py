"""What a stage is asked, also of the data that it reads, in plain values; whether it is asked the same again."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from dalle2_train.config import build, to_dict
from dalle2_train.data.shards.freshness import check_fresh
from dalle2_train.data.stream.summary import summarize
from dalle2_train.errors import InputError
from dalle2_train.recipe import Recipe, build_recipe


def data_digest(uri: str) -> str:
    """The identity of the set or mixture at `uri`. Errors: InputError where shards are not what their manifest says."""
    found = summarize(uri)
    for shards in found.sets:
        check_fresh(shards)
    return found.digest


def to_plain(question: Any) -> Any:
    """`question`, a value or mappings of values at any depth, fit for JSON: its configs as mappings."""
    if is_dataclass(question):
        return to_dict(question)
    if isinstance(question, Mapping):
        return {key: to_plain(value) for key, value in question.items()}
    return question


def is_same(question: Any, earlier: Any) -> bool:
    """Is it the question that `earlier` keeps in plain values?

    A config is the same where it is so with the defaults of the settings that came since.
    """
    if is_dataclass(question):
        return _is_same_config(question, earlier)
    if isinstance(question, Mapping) and isinstance(earlier, Mapping):
        return question.keys() == earlier.keys() and all(
            is_same(question[key], earlier[key]) for key in question
        )
    return question == earlier


def _is_same_config(config: Any, earlier: Any) -> bool:
    kind = type(config)
    try:
        built = build_recipe(earlier) if kind is Recipe else build(kind, earlier)
    except InputError:  # it had a setting, or a value, that is no more
        return False
    return to_dict(built) == to_dict(config)
