"""Samples a second of embedding-reader, by an interpreter that has it: FOLDER BATCH_SIZE. float32 and lists of texts.

Its pins are not ours, so that it is installed elsewhere, and nothing of ours is imported here.
"""

import sys
import time

from embedding_reader import EmbeddingReader  # pyright: ignore[reportMissingImports]


def main() -> None:
    """Reads everything once to warm up, and once more in time."""
    folder, batch_size = sys.argv[1], int(sys.argv[2])
    reader = EmbeddingReader(
        embeddings_folder=f"{folder}/img_emb",
        metadata_folder=f"{folder}/metadata",
        meta_columns=["caption"],
        file_format="parquet_npy",
    )
    for timed in (False, True):
        start, rows = time.perf_counter(), 0
        for embeddings, texts in reader(batch_size=batch_size, show_progress=False):
            batch, captions = embeddings.astype("float32"), texts["caption"].tolist()
            assert len(batch) == len(captions)
            rows += len(batch)
        if timed:
            print(rows / (time.perf_counter() - start))


if __name__ == "__main__":
    main()
