"""What the steps hand on."""

from types import SimpleNamespace

import pytest

from dalle2_train.evaluation import EvaluationConfig
from dalle2_train.workflow import steps


@pytest.mark.parametrize("sees", [True, False])
def test_a_text_half_of_a_clip_is_not_asked_what_it_sees(monkeypatch, sees):
    clip, asked = SimpleNamespace(sees_pictures=sees), []
    monkeypatch.setattr(
        steps, "evaluate", lambda *_, clip, **__: asked.append(clip) or SimpleNamespace(report=1)
    )
    monkeypatch.setattr(steps, "verified_digest", lambda models: "digest")
    monkeypatch.setattr(steps, "write_evaluation", lambda done, to: to)
    model = SimpleNamespace(draw=None, settings={}, clip=clip)
    assert steps.evaluate_model(model, ["/model"], "/data", EvaluationConfig()) == ("/model/evaluation", 1)
    assert asked == [clip if sees else None]
