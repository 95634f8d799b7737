"""Open a CLIP folder, check that it can serve an unCLIP, and freeze it."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.utils.hub import cached_file

from dalle2_train import storage
from dalle2_train.encoders.clip import text_config
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.encoders.pixels import CLIP_PIXELS, PixelStatistics
from dalle2_train.encoders.silence import no_progress_bar
from dalle2_train.errors import InputError

_REMEDY = (
    "Give a folder of config.json, model.safetensors and a tokenizer, or a name on the Hugging Face hub."
)

_TYPES = {
    "clip": (CLIPConfig, CLIPModel),
    "clip_text_model": (CLIPTextConfig, CLIPTextModelWithProjection),
}


def load_clip(source: str, expected_fingerprint: str | None = None) -> ClipEncoder:
    """Load a frozen CLIP in float32 from a folder (any fsspec URI), a CLIP run's folder, or a hub name.

    Only safetensors are read. A text half alone (of type clip_text_model) is read too. Raises InputError when the
    source holds no CLIP, when weights are missing, when the text width is not the embedding's width, or when the
    CLIP does not answer to the expected fingerprint.
    """
    with tempfile.TemporaryDirectory() as scratch:
        encoder = open_clip(source, _resolve(source, Path(scratch)))
    if expected_fingerprint is not None and not encoder.answers_to(expected_fingerprint):
        half = "" if encoder.sees_pictures else " (of a text half alone)"
        raise InputError(
            f"The CLIP at {source} has the fingerprint {encoder.fingerprint}{half}, but {expected_fingerprint} is "
            "needed. Give the CLIP that the embeddings and models were made with."
        )
    return encoder


def absolute_source(source: str) -> str:
    """A folder by its full name, for processes that work in another one; a name on the hub stays as it is."""
    return storage.absolute(source) if storage.exists(source) else source


def _resolve(source: str, scratch: Path) -> str:
    """A local folder holding config.json, or `source` itself when only the hub can know it."""
    for uri in (source, storage.join(source, "model")):
        if storage.exists(storage.join(uri, "config.json")):
            local = storage.local_path(uri)
            if local is None:
                storage.download_tree(uri, scratch)
                return str(scratch)
            return str(local)
    if "://" in source or source.startswith(("/", ".", "~", "file:")) or storage.exists(source):
        raise InputError(f"No CLIP at {source}: it has no config.json. {_REMEDY}")
    return source


def open_clip(source: str, folder: str) -> ClipEncoder:
    """The CLIP in a local folder; `source` is what messages call it. Errors: as `load_clip`."""
    try:
        found, _ = CLIPConfig.get_config_dict(folder)
        _check_config(source, found)
        model, report = _load_model(_TYPES[found["model_type"]][1], folder)
        tokenizer = CLIPTokenizer.from_pretrained(folder)
        pixels = _pixel_statistics(folder)
    except InputError:
        raise
    except Exception as error:  # transformers, safetensors and tokenizers each raise kinds of their own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        where = "it" if folder != source else "there is no such folder here, and as a name on the hub it"
        raise InputError(f"{source}: {where} cannot be opened as a CLIP: {reason}. {_REMEDY}") from error
    if absent := sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"]):
        raise InputError(
            f"The CLIP at {source} lacks weights, {absent[0]} among {len(absent)}. Restore the folder."
        )
    _check_tokenizer(source, model.config, tokenizer)
    return ClipEncoder(model, tokenizer, pixels)


def _load_model(
    model_type: type[CLIPModel | CLIPTextModelWithProjection], folder: str
) -> tuple[CLIPModel | CLIPTextModelWithProjection, dict[str, Any]]:
    with no_progress_bar():
        loaded: Any = model_type.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    return loaded


def _check_config(source: str, found: dict) -> None:
    kind = found.get("model_type")
    if kind not in _TYPES:
        raise InputError(f"{source} holds a model of type {kind!r}, not 'clip'. {_REMEDY}")
    config = _TYPES[kind][0].from_dict(found)
    width, embed_dim = text_config(config).hidden_size, config.projection_dim
    if width != embed_dim:
        raise InputError(
            f"The CLIP at {source} has text width {width} and embedding width {embed_dim}. The prior and the "
            "decoder need them equal, as in ViT-B/32 (512), ViT-L/14 (768) and ViT-H/14 (1024)."
        )


def _check_tokenizer(source: str, config: CLIPConfig | CLIPTextConfig, tokenizer: CLIPTokenizer) -> None:
    context_length = text_config(config).max_position_embeddings
    if tokenizer.model_max_length != context_length:
        raise InputError(
            f"The tokenizer at {source} cuts at {tokenizer.model_max_length} tokens, the model at "
            f"{context_length}. Set model_max_length in tokenizer_config.json."
        )
    # transformers' legacy id 2 means "pool at the highest id", right for the tokenizers of that time.
    eos = text_config(config).eos_token_id
    if eos not in (2, tokenizer.eos_token_id):
        raise InputError(
            f"At {source} the model pools at token {eos}, the tokenizer ends with {tokenizer.eos_token_id}."
        )
    if len(tokenizer) > text_config(config).vocab_size:
        raise InputError(
            f"The tokenizer at {source} has {len(tokenizer)} tokens, the model fewer. Restore the folder."
        )


def _pixel_statistics(folder: str) -> PixelStatistics:
    path = cached_file(folder, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
    if path is None:
        return CLIP_PIXELS
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    mean, std = found.get("image_mean", CLIP_PIXELS.mean), found.get("image_std", CLIP_PIXELS.std)
    return PixelStatistics(tuple(mean), tuple(std))
