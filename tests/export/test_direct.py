"""A direct baseline is released like an unCLIP, and diffusers has nothing to hold it."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dalle2_train.checkpoints import model_digest, open_model
from dalle2_train.errors import RefusedError
from dalle2_train.evaluation import verified_digest
from dalle2_train.export import export_release
from dalle2_train.export.diffusers_folder import export_diffusers
from dalle2_train.generation.drawing import open_text_to_image


def test_a_release_draws_the_models_pictures_and_diffusers_is_refused(
    tiny: SimpleNamespace, models: Mapping[str, str], tmp_path: Path
):
    model = str(tiny.write_direct(tmp_path / "direct", Path(models["clip"])))
    release = export_release([model], str(tmp_path / "release"))
    assert release.models == {
        "clip": open_text_to_image([model]).clip.fingerprint,
        "direct": model_digest(open_model(model)[0]),
    }
    prompts = ["a red heart", "the sea"]
    ours, released = (open_text_to_image([uri]).draw(prompts).image for uri in (model, release.path))
    assert torch.equal(ours, released) and not torch.equal(ours[0], ours[1])
    assert verified_digest(release.path)
    assert export_release([model], release.path) == release, "the same export again finds itself"
    with pytest.raises(RefusedError, match=r"direct baseline.*safetensors"):
        export_diffusers([model], str(tmp_path / "diffusers"))
    assert not (tmp_path / "diffusers").exists()
