"""Out of memory is told with what would take less of it, and what is no memory's fault goes through."""

import re
from dataclasses import replace

import pytest
import torch
from toy_training import ToyModule, train_alone

from dalle2_train.errors import RefusedError
from dalle2_train.parallel.shard import ParallelConfig
from dalle2_train.training.memory import Load, MemoryRefusal, told_what_fits

GPU = Load(8, True, ParallelConfig(shard=2), "cuda", 4)


def told(load: Load, error: Exception) -> str:
    with pytest.raises(MemoryRefusal) as caught, told_what_fits(load):
        raise error
    return str(caught.value)


def test_a_gpu_out_of_memory_is_told_every_way():
    text = told(GPU, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"))
    assert text.startswith(
        "8 samples at once do not fit into memory (CUDA out of memory. Tried to allocate 2 GiB)"
    )
    for way in ("micro_batch_size=4", "activation_checkpointing=true", "cpu_offload=true", "parallel.shard"):
        assert way in text


def test_no_way_is_told_that_would_be_refused_or_helps_nothing():
    load = Load(8, False, ParallelConfig(activation_checkpointing=True), "cpu", 1)
    text = told(load, RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    for way in ("micro_batch_size", "activation_checkpointing", "cpu_offload", "parallel.shard"):
        assert way not in text
    assert re.search(r"--workers", text)


def test_weights_alone_that_do_not_fit_are_told_what_holds_less_of_them():
    text = told(replace(GPU, num_samples=0), torch.OutOfMemoryError("CUDA out of memory"))
    assert text.startswith("the weights alone do not fit into memory (CUDA out of memory)")
    for way in ("cpu_offload=true", "parallel.shard", "--workers"):
        assert way in text
    for way in ("micro_batch_size", "activation_checkpointing", "global_batch_size"):
        assert way not in text


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes") as caught, told_what_fits(GPU):
        raise RuntimeError("shapes do not match")
    assert not isinstance(caught.value, RefusedError)


def test_a_real_allocation_that_fails_ends_the_training(tmp_path, monkeypatch):
    real = ToyModule.compute_loss

    def greedy(self, batch, step):
        if step == 3:
            torch.empty(1 << 46, dtype=torch.uint8)
        return real(self, batch, step)

    monkeypatch.setattr(ToyModule, "compute_loss", greedy)
    with pytest.raises(MemoryRefusal, match=r"training\.micro_batch_size=4"):
        train_alone(str(tmp_path / "run"))
