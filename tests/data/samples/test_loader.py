"""What loader workers run."""

import subprocess
import sys


def test_loader_workers_start_without_torch():
    seen = "import sys, dalle2_train.data.samples.loader; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", seen], timeout=60).returncode == 0


def test_loader_workers_read_without_pandas(make_set):
    """pyarrow brings it for its own conveniences, and it starts more slowly than all the rest together."""
    seen = (
        "import sys; from dalle2_train.data.shards.index import open_set;"
        "from dalle2_train.data.shards.reader import Reader;"
        "from dalle2_train.data.shards.shard_index import Place;"
        "(raw,) = Reader(open_set(sys.argv[1])).read([Place(0, 3)]); assert raw['txt'] == b'number 3';"
        "sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", seen, make_set(5)], timeout=60).returncode == 0
