"""An export to an object store whose process is killed: the same command goes on, to the same bits."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from servers import object_store

from dalle2_train import storage
from dalle2_train.export import export_release
from dalle2_train.export.upload import MARKER
from dalle2_train.storage.places import open_fs

pytestmark = pytest.mark.system

# Killed by itself, so that it dies between the same two requests every time.
KILLED = """
import os, signal, sys
from dalle2_train import storage
from dalle2_train.export import export_release

to, after, *models = sys.argv[1:]
publish_file, done = storage.publish_file, []

def publish(*given):
    die_after_all()
    done.append(given)
    return publish_file(*given)

def die_after_all(*_):
    if len(done) == int(after):
        os.kill(os.getpid(), signal.SIGKILL)

storage.publish_file, storage.remove = publish, die_after_all
export_release(models, to)
"""


@pytest.fixture(scope="module", autouse=True)
def store() -> Iterator[None]:
    told = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    with object_store() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in {**told, "AWS_ENDPOINT_URL": url}.items():
            patch.setenv(name, value)
        open_fs("s3://bucket")[0].mkdir("bucket")
        yield


def killed(to: str, after: int, models: Mapping[str, str]) -> None:
    """A process that exports `models` and dies at the first request after `after` files have been uploaded."""
    command = [sys.executable, "-c", KILLED, to, str(after), *models.values()]
    assert subprocess.run(command, env=os.environ, check=False).returncode == -signal.SIGKILL


def at(to: str) -> dict[str, str]:
    return {uri.removeprefix(to + "/"): storage.sha256_file(uri) for uri in storage.list_files(to)}


def test_it_goes_on_and_the_end_is_that_of_an_uninterrupted_one(models: Mapping[str, str], tmp_path: Path):
    whole = export_release(list(models.values()), str(tmp_path / "whole"))
    expected = at(whole.path)
    # Killed after the second file, before unclip.json, and when only the marker is left to be removed.
    for after in (2, len(expected) - 1, len(expected)):
        to = f"s3://bucket/killed/{after}"
        killed(to, after, models)
        assert len(at(to).keys() - {MARKER}) == after and MARKER in at(to)
        again = export_release(list(models.values()), to)
        assert at(to) == expected
        assert (again.digest, again.num_bytes) == (whole.digest, whole.num_bytes)
