"""The check of embedded sets: whatever is damaged is found, alone or beside shards."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dalle2_train.data.check.doctor import check
from dalle2_train.data.embed.foreign import index_embeddings

MakeSet = Callable[..., str]


def kinds(uri: str) -> set[tuple[str, str | None, str]]:
    return {(fault.shard, fault.key, fault.kind) for fault in check(uri).faults}


def test_a_good_set_has_no_faults_alone_or_beside_its_shards(make_set: MakeSet, embed, tmp_path: Path):
    uri = make_set(25)
    embed(uri, tmp_path / "to", text_encodings=True)
    report = check(str(tmp_path / "to"))
    assert (report.faults, report.num_shards, report.num_samples) == ((), 3, 25)
    embed(uri, uri)
    assert check(uri).faults == ()


def test_every_file_is_looked_at(make_set: MakeSet, embed, tmp_path: Path):
    uri = make_set(25)
    embed(uri, uri, text_encodings=True)
    for column in ("img_emb", "text_emb", "text_encodings", "text_mask"):
        file = Path(uri) / column / f"{column}_00001.npy"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        assert kinds(uri) == {(f"{column}/{column}_00001.npy", None, "digest")}
        file.unlink()
        assert kinds(uri) == {(f"{column}/{column}_00001.npy", None, "missing")}
        data[-1] ^= 1
        file.write_bytes(data)
    assert kinds(uri) == set()


def test_rows_of_another_program_are_looked_at(clip_retrieval, tmp_path: Path):
    vectors = np.arange(24, dtype=np.float16).reshape(6, 4)
    vectors[3, 1] = np.nan
    text = vectors.copy()
    text[3:5, 0] = (0, np.inf)
    keys = ["a", "b", "c", "d", "e", "a"]
    uri = clip_retrieval([{"img_emb": vectors, "text_emb": text, "image_path": keys}])
    index_embeddings(uri, "c", "f", embed_dim=4)
    assert kinds(uri) == {
        ("0", "a", "duplicate"),
        ("0", "d", "broken_embedding"),
        ("0", "e", "broken_embedding"),
    }
    manifest = json.loads((Path(uri) / "embeddings.json").read_text())
    manifest["parts"][0]["num_samples"] = 7
    (Path(uri) / "embeddings.json").write_text(json.dumps(manifest))
    assert {kind for _, _, kind in kinds(uri)} == {"count"}
