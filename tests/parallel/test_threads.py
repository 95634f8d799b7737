"""How many cores a thread computes with, asked of torch itself, in a process whose threads are all new."""

import subprocess
import sys

PROGRAM = """
import os, threading
os.environ.pop("OMP_NUM_THREADS", None)
import torch
from dalle2_train.parallel.threads import cores_for_this_thread

def elsewhere():
    found = []
    thread = threading.Thread(target=lambda: (torch.ones(3) + 1, found.append(torch.get_num_threads())))
    thread.start()
    thread.join()
    return found[0]

torch.set_num_threads(3)
with cores_for_this_thread(2):
    print(torch.get_num_threads(), elsewhere())
with cores_for_this_thread(None):
    print(torch.get_num_threads(), elsewhere())
os.environ["OMP_NUM_THREADS"] = "4"
with cores_for_this_thread(None):
    print(torch.get_num_threads(), elsewhere())
print(torch.get_num_threads(), elsewhere())
"""


def test_the_networks_thread_has_the_cores_and_any_other_has_one():
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:4] == ["2 1", "3 1", "4 1", "3 3"]
