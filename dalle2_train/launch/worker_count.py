"""How many workers: a number, or the least and the most of an elastic training."""

from dataclasses import dataclass

from dalle2_train.errors import InputError


@dataclass(frozen=True)
class WorkerCount:
    """least == most == 0: this process, without Ray."""

    least: int
    most: int

    @classmethod
    def of(cls, workers: "int | str | WorkerCount") -> "WorkerCount":
        """4, "4" or "2:4". Raises InputError for what is none of them."""
        if isinstance(workers, WorkerCount):
            return workers
        least, colon, most = str(workers).partition(":")
        try:
            found = cls(int(least), int(most) if colon else int(least))
        except ValueError:
            raise InputError(f"--workers {workers}: give N, or MIN:MAX such as 2:4") from None
        if found.least < 0 or found.most < found.least or (colon and found.least == 0):
            raise InputError(f"--workers {workers}: give N of 0 or more, or MIN:MAX with 1 ≤ MIN ≤ MAX")
        return found

    @property
    def is_elastic(self) -> bool:
        """May their number change while they train?"""
        return self.least != self.most

    @property
    def sizes(self) -> range:
        """World sizes that may come."""
        return range(max(1, self.least), max(1, self.most) + 1)

    def __str__(self) -> str:
        return f"{self.least}:{self.most}" if self.is_elastic else str(self.least)


def check_sizes(count: WorkerCount, num_lanes: int) -> None:
    """Every world size gets an equal share of every global batch, or InputError says which ones would."""
    if all(num_lanes % size == 0 for size in count.sizes):
        return
    if not count.is_elastic:
        raise InputError(
            f"--workers {count} does not divide data.num_lanes {num_lanes}; choose a divisor of it"
        )
    bad = ", ".join(str(size) for size in count.sizes if num_lanes % size)
    good = ", ".join(str(size) for size in range(1, num_lanes + 1) if num_lanes % size == 0)
    raise InputError(
        f"--workers {count}: Ray may choose {bad} workers, which do not divide data.num_lanes {num_lanes}; these do: "
        f"{good}. Choose a range of them, one number, or another data.num_lanes"
    )
