"""What a module takes over before its first step: statistics of the embeddings, and weights to begin with."""

from dalle2_train.checkpoints import weights_digest
from dalle2_train.checkpoints.exchange import together
from dalle2_train.data.embeddings.merged import Embeddings
from dalle2_train.launch.initial import initial_digest, open_initial
from dalle2_train.launch.job import TrainJob
from dalle2_train.launch.statistics import tell_what_is_left_out, use_embeddings
from dalle2_train.launch.words import Words
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.clip import ClipModule
from dalle2_train.training.prior import PriorModule


def prepare(
    job: TrainJob,
    module: UnclipModule,
    embeddings: Embeddings | None,
    words: Words,
) -> str | None:
    """Statistics of the embeddings and weights to begin with, whose digest is returned; every rank calls it."""
    if embeddings is not None:
        use_embeddings(job, module, embeddings, words)
    uri = job.init_from
    init_from = together(lambda: None if uri is None else _begin(uri, module))
    if embeddings is not None:
        together(lambda: tell_what_is_left_out(job, module, embeddings))
    return init_from


def _begin(uri: str, module: UnclipModule) -> str:
    """Load the weights to begin with, which `check` saw to fit; returns their digest. A CLIP was built with them."""
    if isinstance(module, ClipModule):
        return initial_digest(uri, "clip")
    initial = open_initial(uri, module.kind)
    state = initial.state
    if isinstance(module, PriorModule) and not state["clip_std"].any():
        # Zeros are what diffusers begins with: nobody has measured them.
        state = state | {name: getattr(module.network, name) for name in ("clip_mean", "clip_std")}
    module.network.load_state_dict(state)
    return weights_digest(initial.manifest)
