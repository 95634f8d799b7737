"""Which of MLflow's runs is a training's own: the one of its name, in its place."""

import hashlib
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Run

from dalle2_train.redaction import redact, without_passwords
from dalle2_train.tracking.params import without_secret

NAME_TAG = "dalle2_train.name"
PLACE_TAG = "run_uri"
DIGEST_TAG = "dalle2_train.run_uri_sha256"


def public_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """`tags` as MLflow is given them: without secrets, which leaves the same text of some places, and hence with a
    digest of the place as it is."""
    place = {DIGEST_TAG: _digest(tags[PLACE_TAG])} if PLACE_TAG in tags else {}
    return {name: without_secret(name, value) for name, value in tags.items()} | place


def find_run(client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]) -> Run | None:
    """The run of that name in that place: another storage may hold another run of the name. tags: `public_tags`."""
    quote = '"' if "'" in name else "'"
    runs = client.search_runs([experiment_id], f"tags.`{NAME_TAG}` = {quote}{name}{quote}")
    if PLACE_TAG not in tags:
        ours = [run for run in runs if PLACE_TAG not in run.data.tags]
    else:
        ours = [run for run in runs if run.data.tags.get(DIGEST_TAG) == tags[DIGEST_TAG]]
        ours = ours or [run for run in runs if _is_older(run.data.tags, tags)]
    return next(iter(ours), None)


def create_run(client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]) -> Run:
    """Already with all that `find_run` looks for. tags: `public_tags`."""
    place = {tag: tags[tag] for tag in (PLACE_TAG, DIGEST_TAG) if tag in tags}
    return client.create_run(experiment_id, tags={NAME_TAG: name, **place}, run_name=name)


def _is_older(theirs: Mapping[str, str], tags: Mapping[str, str]) -> bool:
    """Of a version that wrote no digest, and the place as it is, until its first start put the public text there."""
    if DIGEST_TAG in theirs or PLACE_TAG not in theirs:
        return False
    place = theirs[PLACE_TAG]
    return place == tags[PLACE_TAG] if redact(place) == place else _digest(place) == tags[DIGEST_TAG]


def _digest(place: str) -> str:
    """Of the place without its secrets: they change, and nobody is to try them out by it."""
    return hashlib.sha256(without_passwords(place).encode()).hexdigest()[:16]
