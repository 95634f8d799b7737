"""Work on many shards, in this process or spread over a pool of Ray actors."""

import logging
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from dalle2_train.errors import InputError, RefusedError

Task = TypeVar("Task")
Result = TypeVar("Result")


def shard_map(workers: int) -> Callable[[Callable[[Any], Any], list[Any]], Iterable[Any]]:
    """A map in the tasks' order: `map` itself for 0 workers, else on so many Ray actors. Below 0: InputError."""
    if workers < 0:
        raise InputError(f"--workers {workers}: give 0 for this process, or the number of Ray actors")
    if workers == 0:
        return map
    return lambda work, tasks: _map_on_ray(work, tasks, workers)


def _map_on_ray(work: Callable[[Task], Result], tasks: list[Task], workers: int) -> Iterator[Result]:
    """Results as they become the next in order. A killed actor is replaced, and its task done again."""
    # Ray is imported where it is wanted only.
    import ray
    import ray.data

    from dalle2_train.launch.ray_connection import connect

    is_ours = connect(workers)
    try:
        # Progress is the caller's to tell.
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        has_gpus = ray.cluster_resources().get("GPU", 0) > 0
        numbers = ray.data.range(len(tasks), override_num_blocks=len(tasks))
        done = numbers.map(
            _Actor,  # pyright: ignore[reportArgumentType] - Ray makes an actor of a class
            fn_constructor_args=(work, tasks),
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(tasks))),
            num_cpus=1,
            num_gpus=1 if has_gpus else 0,
        )
        yield from _in_order(done.iter_rows())
    finally:
        if is_ours:
            ray.shutdown()


class _Actor:
    def __init__(self, work: Callable[[Any], Any], tasks: list[Any]) -> None:
        self.work, self.tasks = work, tasks

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        number = int(row["id"])
        try:
            result = self.work(self.tasks[number])
        except (InputError, RefusedError) as error:
            result = error  # Ray would wrap it, and try again what would only happen again
        return {"number": number, "result": pickle.dumps(result)}


def _in_order(rows: Iterable[dict[str, Any]]) -> Iterator[Any]:
    waiting: dict[int, Any] = {}
    following = 0
    for row in rows:
        # Made by our own actors a moment ago, as Ray's own messages are.
        waiting[int(row["number"])] = pickle.loads(row["result"])  # noqa: S301
        while following in waiting:
            result = waiting.pop(following)
            if isinstance(result, Exception):
                raise result
            yield result
            following += 1
