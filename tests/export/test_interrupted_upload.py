"""An export to an object store whose process is killed: the same command goes on, to the same bits."""

import signal
from collections.abc import Iterator, Mapping

import pytest
from forked import PATIENCE, Forked
from servers import object_store

from dalle2_train import storage
from dalle2_train.export import Release, export_release
from dalle2_train.export.upload import MARKER
from dalle2_train.storage.places import open_fs

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, str]]:
    """What a process has to know of the store, in its environment."""
    told = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    with object_store() as url, pytest.MonkeyPatch.context() as patch:
        told["AWS_ENDPOINT_URL"] = url
        for name, value in told.items():
            patch.setenv(name, value)
        open_fs("s3://bucket")[0].mkdir("bucket")
        yield told


@pytest.fixture(scope="module")
def whole(models: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Of an export that nothing interrupted."""
    return export_release(list(models.values()), str(tmp_path_factory.mktemp("whole") / "release"))


def at(to: str) -> dict[str, str]:
    return {uri.removeprefix(to + "/"): storage.sha256_file(uri) for uri in storage.list_files(to)}


@pytest.mark.parametrize("left", [0, 1, 10])
def test_it_goes_on_to_what_an_uninterrupted_one_makes(
    left: int, models: Mapping[str, str], whole: Release, store: dict[str, str]
):
    """Killed with some files left to upload; 0: with nothing left but the marker to remove."""
    to, expected = f"s3://bucket/{left}/release", at(whole.path)
    after = len(expected) - left
    assert after > 0
    process = Forked("export_kill").start("export_and_die", list(models.values()), to, after, store)
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    assert len(at(to).keys() - {MARKER}) == after and MARKER in at(to)
    again = export_release(list(models.values()), to)
    assert at(to) == expected
    assert (again.digest, again.num_bytes) == (whole.digest, whole.num_bytes)
