"""What loader workers run."""

import subprocess
import sys


def test_loader_workers_start_without_torch():
    seen = "import sys, dalle2_train.data.loader; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", seen], timeout=60).returncode == 0
