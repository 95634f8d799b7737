"""Strict mappings → any frozen dataclass: an unknown key, a wrong type or a bad value is told by its path."""

import copy
import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from dalle2_train.errors import InputError

T = TypeVar("T")


def build(cls: type[T], mapping: Mapping[str, Any], where: str = "recipe") -> T:
    """A `cls` (a frozen dataclass, possibly of dataclasses) with the values of `mapping`.

    Values that already are instances of the field's type stay as they are. Numbers may be strings ("1e-4"). Of
    several dataclasses that a field may hold, the one whose `kind` (a Literal) the mapping names is built.
    Raises InputError naming the path under `where`, the value and the remedy.
    """
    check_keys(cls, mapping, where)
    try:
        return _adapter(cls).validate_python(_with_kinds_built(cls, mapping, where))
    except ValidationError as error:
        raise InputError("\n".join(_explain(e, where) for e in error.errors(include_url=False))) from None


def check_keys(cls: Any, mapping: Mapping[Any, Any], where: str) -> None:
    """Raise InputError for the first key of `mapping`, at any depth, that `cls` has no field for."""
    if not isinstance(mapping, Mapping):
        raise InputError(f"{where}: {mapping!r} is not a mapping of keys to values")
    hints = typing.get_type_hints(cls)
    fields = {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}
    for key, value in mapping.items():
        if key not in fields:
            raise InputError(f"{where}: no key {str(key)!r}; {_suggest(str(key), list(fields))}")
        for nested, item, suffix in _nested(fields[key], value):
            check_keys(nested, item, f"{where}.{key}{suffix}")


def _with_kinds_built(cls: Any, mapping: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`mapping` with the values built of which only their `kind` tells the type: pydantic would try them all."""
    found = dict(mapping)
    for name, hint in typing.get_type_hints(cls).items():
        value, path = found.get(name), f"{where}.{name}"
        if not isinstance(value, Mapping):
            continue
        if kinds := _kinds(hint):
            found[name] = build(_chosen(kinds, value, path), value, path)
        elif dataclasses.is_dataclass(hint):
            found[name] = _with_kinds_built(hint, value, path)
    return found


def _kinds(hint: Any) -> dict[str, Any]:
    """kind → dataclass, of a union of several that tell themselves apart by it."""
    types_ = [h for h in typing.get_args(hint) if dataclasses.is_dataclass(h)]
    if len(types_) < 2 or not all("kind" in typing.get_type_hints(h) for h in types_):
        return {}
    return {typing.get_args(typing.get_type_hints(h)["kind"])[0]: h for h in types_}


def _chosen(kinds: Mapping[str, Any], value: Mapping[str, Any], where: str) -> Any:
    kind = value.get("kind")
    if kind not in kinds:
        raise InputError(f"{where}.kind: {kind!r} is none of {', '.join(kinds)}")
    return kinds[str(kind)]


def to_dict(obj: Any) -> dict[str, Any]:
    """The dataclass `obj` as plain mappings, lists and scalars, fit for YAML and JSON; `build` reads it back."""
    plain = _plain(dataclasses.asdict(obj))
    assert isinstance(plain, dict)
    return plain


def override(mapping: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A copy of `mapping` with every "a.b=3" applied; the value is a YAML scalar or list.

    A path that no config has is left for `build` to find. Raises InputError for what isn't PATH=VALUE.
    """
    result = copy.deepcopy(dict(mapping))
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise InputError(
                f"--set {assignment!r} is not KEY=VALUE; write for instance training.num_steps=100"
            )
        _assign(result, keys, _parse(assignment, text))
    return result


def read_yaml(text: str, where: str) -> dict[str, Any]:
    """The mapping that the YAML `text` holds. Raises InputError naming `where` for anything else."""
    try:
        loaded = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not YAML: {error}") from None
    if not isinstance(loaded, dict):
        raise InputError(f"{where}: expected a mapping of keys to values, found {type(loaded).__name__}")
    return loaded


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's own loader keeps the last of two equal keys silently; here the second is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is there twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _adapter(cls: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(cls)


def _assign(mapping: dict[str, Any], keys: list[str], value: Any) -> None:
    for depth, key in enumerate(keys[:-1]):
        mapping = mapping.setdefault(key, {})
        if not isinstance(mapping, dict):
            raise InputError(
                f"--set {'.'.join(keys)}: {'.'.join(keys[: depth + 1])} is a value, not a section"
            )
    mapping[keys[-1]] = value


def _parse(assignment: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {assignment!r}: the value is not YAML: {error}") from None


def _nested(hint: Any, value: Any) -> Iterator[tuple[Any, Any, str]]:
    """The (dataclass, mapping, path suffix) triples inside `value` that `hint` promises."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        options = [h for h in typing.get_args(hint) if dataclasses.is_dataclass(h)]
        hint = (
            options[0] if len(options) == 1 else None
        )  # of several dataclasses the caller has to choose one
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        yield hint, value, ""
    elif typing.get_origin(hint) in (tuple, list) and isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from ((h, v, f"[{i}]{s}") for h, v, s in _nested(typing.get_args(hint)[0], item))
    elif typing.get_origin(hint) is dict and isinstance(value, Mapping):
        for name, item in value.items():
            yield from ((h, v, f".{name}{s}") for h, v, s in _nested(typing.get_args(hint)[1], item))


def _suggest(key: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(key, valid, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"valid keys: {', '.join(sorted(valid))}"


def _explain(error: Any, where: str) -> str:
    # A union's branches put their type's name into the location: only fields and indices are for the user.
    path = where + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error["loc"] if _is_field(p))
    if error["type"] in ("missing", "missing_argument"):
        return f"{path}: a value is missing; add it, or set it with --set {path.partition('.')[2]}=…"
    message = error["msg"].removeprefix("Value error, ")
    return f"{path}: {error['input']!r} cannot be used: {message[:1].lower()}{message[1:]}"


def _is_field(part: Any) -> bool:
    return isinstance(part, int) or (
        part.isidentifier() and part not in ("int", "float", "str", "bool", "none")
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
