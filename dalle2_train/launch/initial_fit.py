"""Whether weights to begin with fit the model that a recipe describes: what does not is told with the remedy."""

import sys

import torch
from torch import nn

from dalle2_train.checkpoints import ClipReference
from dalle2_train.checkpoints.misfits import describe_misfits
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.errors import InputError
from dalle2_train.launch.initial import Initial, open_initial, place_of
from dalle2_train.launch.initial_clip import initial_clip
from dalle2_train.launch.initial_settings import differences, learned_anew, meant_otherwise, remedy, told
from dalle2_train.networks.ar_prior import ArPrior
from dalle2_train.networks.decoder import Decoder
from dalle2_train.networks.direct import Direct
from dalle2_train.networks.prior import Prior
from dalle2_train.networks.text_projection import plain_state
from dalle2_train.networks.upsampler import Upsampler
from dalle2_train.recipe import ModelConfig, Recipe
from dalle2_train.training.clip import ClipModelConfig

_NETWORKS: dict[str, type[nn.Module]] = {
    "prior": Prior,
    "ar_prior": ArPrior,
    "decoder": Decoder,
    "upsampler": Upsampler,
    "direct": Direct,
}


def check_init_from(uri: str, recipe: Recipe, clip: ClipEncoder | None) -> None:
    """Raises InputError where a training by `recipe` cannot begin with the weights at `uri`, RefusedError where they
    are damaged. clip: the one that made the embeddings, for families that have any."""
    if isinstance(recipe.model, ClipModelConfig):
        initial_clip(uri, place_of(uri, "clip"), recipe.model.encoder)
        return
    check_initial(uri, open_initial(uri, recipe.family), recipe.model, clip)


def check_initial(uri: str, initial: Initial, model: ModelConfig, clip: ClipEncoder | None) -> None:
    """Raises InputError that says all of why `initial` does not fit `model`, and a remedy; says on stderr, in one line,
    what it has to learn anew."""
    _check_clip(uri, initial.manifest.clip, clip)
    assert not isinstance(model, ClipModelConfig)
    with torch.device("meta"):
        network = _NETWORKS[initial.manifest.kind](model.network)
    misfits = describe_misfits(plain_state(network.state_dict()), plain_state(initial.state))
    found = differences(initial, model)
    anew, otherwise = learned_anew(found), meant_otherwise(found)
    if misfits or otherwise:
        why = "; ".join(filter(None, [misfits, told(otherwise)]))
        kept = {key: value for key, value in found.items() if key not in anew}
        same = f"make it the same with {remedy(kept)}" if kept else "use the recipe it was trained with"
        raise InputError(f"--init-from {uri}: its weights do not fit the recipe's model ({why}); {same}")
    if anew:
        print(
            f"--init-from {uri}: {told(anew)}; the weights learn it anew, unless you {remedy(anew)}",
            file=sys.stderr,
        )


def _check_clip(uri: str, made_with: ClipReference | None, clip: ClipEncoder | None) -> None:
    if clip is not None and made_with is not None and not clip.answers_to(made_with.fingerprint):
        raise InputError(
            f"--init-from {uri}: it was trained with the CLIP {made_with.fingerprint}, the embeddings are of "
            f"{clip.fingerprint}; embed with that CLIP ({made_with.uri}), or begin anew"
        )
