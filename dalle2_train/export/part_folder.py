"""One part of a diffusers folder as it lies there: its config, completed, and its weights, all accounted for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dalle2_train.checkpoints.misfits import describe_misfits
from dalle2_train.errors import InputError
from dalle2_train.export.diffusers_names import CLASSES, config_name, default_config, weights_name

_LOSSLESS = (torch.float32, torch.float16, torch.bfloat16)


def read_config(folder: Path, part: str) -> dict[str, Any]:
    """The config of `part`, with what it leaves out as diffusers would take it.

    Raises InputError for another class, or a key that this diffusers does not know.
    """
    written = read_json(folder / part / config_name(part))
    wanted = CLASSES[part][1]
    if written.get("_class_name") != wanted:
        raise InputError(f"{part} is a {written.get('_class_name')}, not the {wanted} of an unCLIP folder")
    given = {key: value for key, value in written.items() if not key.startswith("_")}
    defaults = default_config(part)
    if unknown := sorted(set(given) - set(defaults) - _REQUIRED.get(part, set())):
        raise InputError(f"{part}: its config has {unknown[0]!r}, which the {wanted} of the installed diffusers does "
                         "not know; install the diffusers that wrote it")  # fmt: skip
    return {key: _plain(value) for key, value in (defaults | given).items()}


_REQUIRED = {"text_proj": {"time_embed_dim", "cross_attention_dim"}}


def check_config(
    part: str, found: Mapping[str, Any], ours: Mapping[str, Any], inert: tuple[str, ...] = ()
) -> None:
    """Raises InputError naming each value of `found` that differs from what our network computes.

    ours: the keyword arguments of the same function in diffusers. inert: keys that change nothing here.
    """
    computed = {key: _plain(value) for key, value in (default_config(part) | dict(ours)).items()}
    differing = [
        f"{key} is {found.get(key)!r}, ours is {value!r}"
        for key, value in computed.items()
        if key not in inert and found.get(key) != value
    ]
    if differing:
        raise InputError(f"{part}: our network cannot compute what its config says: {'; '.join(differing)}")


def read_weights(
    folder: Path, part: str, expected: Mapping[str, Tensor], surplus: tuple[str, ...] = ()
) -> dict[str, Tensor]:
    """The weights of `part` as float32, which holds every narrower number exactly.

    expected: name → a tensor of that shape, which may be on the meta device. surplus: names that may be there and mean
    nothing. Raises InputError where a name or a shape differs, where the file is torn, or where there are only pickled
    weights, which are not opened.
    """
    files = _files(folder / part, weights_name(part))
    found = {name: value for file in files for name, value in _load(file).items() if name not in surplus}
    if misfits := describe_misfits(expected, found):
        raise InputError(f"{part}: its weights are not those that its config describes: {misfits}")
    if wide := sorted({str(value.dtype) for value in found.values() if value.dtype not in _LOSSLESS}):
        raise InputError(
            f"{part}: weights of {', '.join(wide)} cannot be kept as float32; save it in float32"
        )
    return {name: value.to(torch.float32) for name, value in found.items()}


def _files(folder: Path, name: str) -> list[Path]:
    """The file of a part's weights, or those that its index names."""
    index = folder / f"{name}.index.json"
    if (folder / name).is_file():
        return [folder / name]
    if index.is_file():
        names = sorted(set(read_json(index)["weight_map"].values()))
        if any(Path(one).name != one for one in names):
            raise InputError(f"{folder.name}: its index names files outside of its folder")
        return [folder / one for one in names]
    pickled = sorted(folder.glob("*.bin"))
    why = "only pickled weights, which can run code; save the pipeline with safe_serialization=True" if pickled else (
        "no weights; restore the folder")  # fmt: skip
    raise InputError(f"{folder.name}: there is no {name}, {why}")


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{file.parent.name}: {file.name} cannot be read ({error}); restore the folder"
        ) from error


def read_json(file: Path) -> dict[str, Any]:
    """The mapping in a JSON file. InputError where there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({error}); give a whole diffusers unCLIP folder") from error
    if not isinstance(found, dict):
        raise InputError(f"{file}: holds no mapping; give a whole diffusers unCLIP folder")
    return found


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
