"""How fast do samples become batches? Ours beside webdataset with Pillow, and beside the bare decoders.

512 pixel JPEGs in tars on this machine's disk, in its page cache, to batches of 64 pictures of 64 pixels. Nothing else
may run meanwhile. Embeddings are 768 numbers in half precision; embedding-reader, whose pins are not ours, is asked
where `--embedding-reader` names an interpreter that has it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from typing import Any

COUNT, SAMPLES_PER_SHARD, LARGE_SHARD = 2000, 500, 10_000
IN_MEMORY = 400
_EMBEDDINGS = "embeddings and captions, ours, shuffled"
_THEIR_EMBEDDINGS = "embeddings and captions, embedding-reader"


def main() -> int:
    """Prints a table and writes the JSON; 1 where a promise is not kept."""
    # Long, for it is one list of contenders, and one of what is promised of them.
    # Here, because spawned loader workers import this module anew, and start as soon as in training.
    from benchmarks import decoders, photographs, streams, vectors
    from benchmarks.measure import Company, Promise, alternate, circumstances, table
    from dalle2_train import storage

    args = _arguments()
    uri = photographs.shards(storage.join(args.folder, "photographs"), COUNT, SAMPLES_PER_SHARD)
    large = photographs.repeated(storage.join(args.folder, "large"), uri, LARGE_SHARD)
    pictures = photographs.jpegs(uri, IN_MEMORY)
    state = streams.middle(large, LARGE_SHARD)
    workers, company = streams.WORKERS, Company()
    ours, theirs = f"ours, {workers} workers", f"webdataset + Pillow, {workers} workers"
    bare = f"simplejpeg alone, {workers} processes"
    with decoders.processes(workers, pictures) as in_processes:
        measured = alternate(
            {
                ours: partial(streams.ours, uri),
                theirs: partial(streams.webdataset_and_pillow, storage.list_files(uri, ".tar")),
                bare: partial(in_processes, decoders.by_simplejpeg),
                "simplejpeg alone, 1 process": partial(decoders.in_memory, decoders.by_simplejpeg, pictures),
                "Pillow's draft alone, 1 process": partial(decoders.in_memory, decoders.by_draft, pictures),
                "Pillow alone, 1 process": partial(decoders.in_memory, decoders.by_pillow, pictures),
            },
            "samples/s",
            args.rounds,
        )
    resumed = "resumed within 10,000 samples, {} workers"
    measured |= alternate(
        {resumed.format(number): partial(streams.resume, large, number, state) for number in (0, workers)},
        "s",
        args.rounds,
    )
    embedded = vectors.vectors(storage.join(args.folder, "vectors"))
    readers = {_EMBEDDINGS: partial(vectors.ours, embedded)}
    if args.embedding_reader:
        readers[_THEIR_EMBEDDINGS] = partial(vectors.embedding_reader, args.embedding_reader, embedded)
    measured |= alternate(readers, "samples/s", args.rounds)
    quality = decoders.decibels(pictures)
    promises = [
        Promise("ours / webdataset + Pillow", measured[ours].median / measured[theirs].median, least=3),
        Promise("ours / simplejpeg alone", measured[ours].median / measured[bare].median, least=0.5),
        Promise("the worst picture's PSNR, dB", float(quality.min()), least=35),
        Promise(resumed.format(workers), measured[resumed.format(workers)].median, most=1),
        Promise("embeddings / pictures", measured[_EMBEDDINGS].median / measured[ours].median, least=20),
    ]
    if args.embedding_reader:
        ratio = measured[_EMBEDDINGS].median / measured[_THEIR_EMBEDDINGS].median
        promises.append(Promise("embeddings, ours / embedding-reader", ratio, least=1))
    found = {
        **circumstances(
            f"python -m benchmarks.data{' --embedding-reader PYTHON' if args.embedding_reader else ''}"
        ),
        "others_share_of_cores": round(company.share(), 3),
        "pictures": _pictures(pictures),
        "psnr_db": {"min": round(float(quality.min()), 1), "mean": round(float(quality.mean()), 1)},
        "measured": {name: one.to_json() for name, one in measured.items()},
        "promises": {promise.name: promise.to_json() for promise in promises},
    }
    storage.publish_json(args.to, found)
    print(table(measured, promises))
    return 0 if all(promise.kept for promise in promises) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", default=f"{tempfile.gettempdir()}/dalle2-train-bench", help="keeps the shards"
    )
    parser.add_argument("--to", default="docs/results/data.json", help="the JSON to be written")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--embedding-reader", metavar="PYTHON", help="an interpreter that has embedding-reader"
    )
    return parser.parse_args()


def _pictures(pictures: list[bytes]) -> dict[str, Any]:
    return {
        "what": "crops of scikit-learn's two photographs, scaled and mirrored at random; JPEG quality 95, 4:2:0",
        "pixels": "512 x 512",
        "kilobytes": round(sum(map(len, pictures)) / len(pictures) / 1000),
        "count": COUNT,
    }


if __name__ == "__main__":
    sys.exit(main())
