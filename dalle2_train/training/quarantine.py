"""What is wrong with the data of a run: kept in its folder, counted, and reason to stop when it is too much."""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist

from dalle2_train import storage
from dalle2_train.checkpoints.exchange import gather, of_first_rank
from dalle2_train.checkpoints.layout import faults_uri, ledger_uri
from dalle2_train.data.faults import Fault
from dalle2_train.data.quarantine import is_too_much, refuse_losses
from dalle2_train.errors import RefusedError
from dalle2_train.storage.lines import JsonLines
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.callbacks import outcome_of
from dalle2_train.training.journal import Journal
from dalle2_train.training.outcome import StepOutcome
from dalle2_train.training.protocols import Batches


class FaultRecord(JsonLines):
    """NAME/data/faults.jsonl: one line a fault, with the step after which it was told; each once in all attempts."""

    def __init__(self, run_uri: str) -> None:
        self._seen: set[tuple[str, str | None, str]] = set()
        self.by_kind: Counter[str] = Counter()
        self.by_shard: Counter[str] = Counter()
        super().__init__(faults_uri(run_uri), self._is_new)

    def tell(self, step: int, faults: Iterable[Fault]) -> None:
        """Add those that are not there yet."""
        for fault in faults:
            line = {"step": step, **asdict(fault)}
            if self._is_new(line):
                self.add(line)

    def _is_new(self, line: dict[str, Any]) -> bool:
        name = (line["shard"], line["key"], line["kind"])
        if name in self._seen:
            return False
        self._seen.add(name)
        self.by_kind[line["kind"]] += 1
        self.by_shard[line["shard"]] += line["num_lost"] if line["key"] is None else 1
        return True


class Quarantine(pl.Callback):
    """On every rank: gathers what all ranks' streams have met, and ends the run on all of them when it is too much."""

    def __init__(self, run_uri: str, journal: Journal | None) -> None:
        """journal: rank 0's."""
        self.run_uri, self._journal = run_uri, journal
        self.met: list[Fault] = []  # where this rank's stream puts its faults
        self.record = FaultRecord(run_uri) if dist.get_rank() == 0 else None
        self._num_told = 0

    def begin(self, step: int, stream: Batches) -> None:
        """Record what is known of the data before training. RefusedError, on every rank, where that is too much."""
        self._max_faulty = stream.max_faulty
        self._num_samples = sum(ledger.kept for ledger in stream.ledger.values())
        if self.record is not None:
            self.record.tell(step, stream.known_faults)
            self.record.flush()
            self._publish({name: asdict(ledger) for name, ledger in stream.ledger.items()})
            self._log(step)
        try:
            refuse_losses(stream.ledger.values(), stream.known_faults, stream.max_faulty)
        except RefusedError:
            self._close()
            raise

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        outcome = outcome_of(pl_module)
        num_met, num_faulty = outcome.data
        is_over = is_too_much(num_faulty, num_met, self._num_samples, self._max_faulty)
        if num_faulty > self._num_told and (
            is_over or trainer.should_stop or _is_due(pl_module, outcome.step)
        ):
            self._gather(outcome.step)
            self._num_told = num_faulty
        if is_over:
            raise RefusedError(self._verdict(outcome))

    def flush(self) -> None:
        """Make what is recorded outlive this machine."""
        if self.record is not None:
            self.record.flush()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        with suppress(OSError):  # what ended the training is told
            self._close()

    def _close(self) -> None:
        if self.record is not None:
            self.record.close()

    def _gather(self, step: int) -> None:
        """Every rank calls it at the same step."""
        heard = gather(list(self.met))
        self.met.clear()
        if self.record is not None:
            self.record.tell(step, [fault for part in heard for fault in part])
            self._log(step)

    def _publish(self, ledgers: dict[str, Any]) -> None:
        account = {"sources": ledgers, "max_faulty": self._max_faulty}
        storage.publish_json(ledger_uri(self.run_uri), account)
        if self._journal is not None:
            self._journal.document("data/ledger.json", account)

    def _log(self, step: int) -> None:
        if self._journal is not None and self.record is not None and self.record.by_kind:
            self._journal.metrics(step, {f"faults/{kind}": n for kind, n in self.record.by_kind.items()})

    def _verdict(self, outcome: StepOutcome) -> str:
        """The same on every rank; rank 0 knows what earlier attempts met."""
        num_met, num_faulty = outcome.data
        verdict = ""
        if self.record is not None:
            shard, count = self.record.by_shard.most_common(1)[0]
            verdict = (
                f"{num_faulty} of the {num_met} samples met up to step {outcome.step} are faulty, more than "
                f"data.max_faulty={self._max_faulty:g} allows; most of them, {count}, in {shard}. "
                f"{faults_uri(self.run_uri)} lists them: repair the set, or raise data.max_faulty"
            )
        return of_first_rank(verdict)


def _is_due(module: UnclipModule, step: int) -> bool:
    config = module.training_config
    every = (config.log_every_steps, config.checkpoint_every_steps)
    return step == config.num_steps or any(step % interval == 0 for interval in every)
