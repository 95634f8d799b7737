"""The CLIP model and its tokenizer: built, saved, loaded, frozen, fingerprinted."""

from dalle2_train.encoders.clip import ClipConfig, build_clip, save_clip, save_clip_companions
from dalle2_train.encoders.encoder import ClipEncoder, TextFeatures
from dalle2_train.encoders.fingerprint import clip_fingerprint
from dalle2_train.encoders.loading import load_clip
from dalle2_train.encoders.tokenizer import tokenize, train_tokenizer
from dalle2_train.encoders.trainable import ClipForTraining, to_clip_state

__all__ = [
    "ClipConfig",
    "ClipEncoder",
    "ClipForTraining",
    "TextFeatures",
    "build_clip",
    "clip_fingerprint",
    "load_clip",
    "save_clip",
    "save_clip_companions",
    "to_clip_state",
    "tokenize",
    "train_tokenizer",
]
