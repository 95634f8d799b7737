"""A training as it was asked for, and the CLIP and the embeddings that it names."""

from dataclasses import dataclass, field, replace

from dalle2_train import storage
from dalle2_train.data.embeddings.layout import EmbeddingInfo
from dalle2_train.data.embeddings.merged import Embeddings
from dalle2_train.data.stream.summary import summarize_embeddings
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.encoders.loading import absolute_source, load_clip
from dalle2_train.errors import InputError, with_article
from dalle2_train.networks.text_encoder import TextEncoderConfig
from dalle2_train.recipe import Recipe
from dalle2_train.training.ar_prior import ArPriorModelConfig
from dalle2_train.training.decoder import DecoderModelConfig
from dalle2_train.training.direct import DirectModelConfig
from dalle2_train.training.prior import PriorModelConfig


@dataclass(frozen=True)
class TrainJob:
    """What to train, on what, and where it is kept."""

    recipe: Recipe
    data: str
    """Folder or pattern of shards, or, for a prior, of embeddings alone; or the YAML file of a mixture."""
    storage: str
    """Folder of all runs."""
    name: str
    """The run's folder in it; the same name goes on with the same run."""
    clip: str | None = None
    """The frozen CLIP; by default the one that made the embeddings."""
    embeddings: str | None = None
    """Folder of embeddings; by default those that `data` holds."""
    tracking: str | None = field(default=None, repr=False)
    """MLflow's URI; where a job is told of, it is not, since it may hold a password."""
    experiment: str = "dalle2-train"
    init_from: str | None = None
    """A model whose weights to begin with."""

    @property
    def run_uri(self) -> str:
        return storage.join(self.storage, self.name)

    @property
    def needs_embeddings(self) -> bool:
        return isinstance(self.recipe.model, PriorModelConfig | ArPriorModelConfig | DecoderModelConfig)

    @property
    def needs_clip(self) -> bool:
        return self.needs_embeddings or isinstance(self.recipe.model, DirectModelConfig)

    def absolute(self) -> "TrainJob":
        """The same job for a process that works in another folder, as Ray's workers do."""
        return replace(
            self,
            data=storage.absolute(self.data),
            storage=storage.absolute(self.storage),
            clip=absolute_source(self.clip) if self.clip else None,
            embeddings=storage.absolute(self.embeddings) if self.embeddings else None,
            init_from=absolute_source(self.init_from) if self.init_from else None,
        )


def find_embeddings(job: TrainJob) -> Embeddings:
    """Those that the job names. Raises InputError where there are none, or where they do not fit."""
    found = summarize_embeddings(job.data, job.embeddings)
    assert isinstance(job.recipe.model, PriorModelConfig | ArPriorModelConfig | DecoderModelConfig)
    wanted = job.recipe.model.network.embed_dim
    if found.info.embed_dim != wanted:
        raise InputError(f"{job.embeddings or job.data}: its embeddings have {found.info.embed_dim} dimensions, but "
                         f"model.network.embed_dim is {wanted}; make them equal")  # fmt: skip
    return found


def open_clip(job: TrainJob, info: EmbeddingInfo | None) -> ClipEncoder:
    """The CLIP that made the embeddings, or, where the model reads none, the one whose tokens it reads.

    Raises InputError for another one, for none, or for a context or a vocabulary that does not fit.
    """
    clip = load_clip(clip_source(job, info), info.clip_fingerprint if info else None)
    model = job.recipe.model
    reads_text = isinstance(model, PriorModelConfig | ArPriorModelConfig | DecoderModelConfig)
    own = model.network.text_encoder if reads_text else None
    of_states = isinstance(model, PriorModelConfig | ArPriorModelConfig)
    if own is not None:
        _check_text_encoder(own, clip, may_be_longer=True)
    elif of_states and model.network.num_text_tokens != clip.context_length:
        raise InputError(f"model.network.num_text_tokens is {model.network.num_text_tokens}, but the CLIP reads "
                         f"{clip.context_length} tokens; make them equal")  # fmt: skip
    if isinstance(model, DirectModelConfig):
        _check_text_encoder(model.network.text_encoder, clip, may_be_longer=False)
    return clip


def clip_source(job: TrainJob, info: EmbeddingInfo | None) -> str:
    """Where the job's CLIP is: as it says, or as its embeddings do. InputError where neither does."""
    if job.clip is not None:
        return job.clip
    if info is None:
        raise InputError(f"{with_article(job.recipe.family)} reads captions as the tokens of a CLIP, and none was "
                         "named; give its folder as --clip")  # fmt: skip
    return info.clip_uri


def _check_text_encoder(config: TextEncoderConfig, clip: ClipEncoder, may_be_longer: bool) -> None:
    """The CLIP's tokenizer makes the tokens; a longer context than CLIP's is cut for CLIP."""
    where, length = "model.network.text_encoder", clip.context_length
    if config.context_length < length or (config.context_length > length and not may_be_longer):
        remedy = "give at least as many" if may_be_longer else "make them equal"
        raise InputError(f"{where}.context_length is {config.context_length}, but the CLIP's tokenizer gives "
                         f"{length} tokens; {remedy}")  # fmt: skip
    if config.vocab_size < len(clip.tokenizer):
        raise InputError(f"{where}.vocab_size is {config.vocab_size}, but the CLIP's tokenizer has "
                         f"{len(clip.tokenizer)}; give at least as many")  # fmt: skip
