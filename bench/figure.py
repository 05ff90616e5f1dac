"""A measured figure: a row of docs/benchmarks.md."""

from typing import NamedTuple


class Figure(NamedTuple):
    """One row. Less is better, unless the aim is above the must."""

    name: str
    value: float
    unit: str
    must: float | None
    aim: float | None

    @property
    def more_is_better(self) -> bool:
        """Which way round it is read."""
        return self.must is not None and self.aim is not None and self.aim > self.must

    @property
    def missed(self) -> bool:
        """Whether it is on the wrong side of what it must be."""
        if self.must is None:
            return False
        return self.value < self.must if self.more_is_better else self.value > self.must
