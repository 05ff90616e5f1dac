"""The model of docs/scaling.md: what a fleet serves, and what it asks of its PostgreSQL, from docs/benchmarks.json.

``python bench/scaling.py`` writes the page's table anew; ``make bench`` does so when it has measured.
"""

import json
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "scaling.md"
BEGIN, END = "<!-- written by bench/scaling.py -->\n", "<!-- to here -->\n"

#: How much of a worker's core verifications may take: what is left is for bursts.
USED = 0.7
RENEWALS = 4  # a second, by each worker
STATEMENTS = 2  # of each worker, for a change: one that reads it and one that confirms it
MISSED = 1 / 1000  # verifications of keys that are not in the worker's memory
CHANGES = 1  # a second


class Measured(NamedTuple):
    """What one thing costs, in microseconds of CPU."""

    verification: float
    renewal: float
    miss: float
    change: float


class Fleet(NamedTuple):
    """Nodes of four workers on four cores, and what they come to."""

    name: str
    nodes: int

    @property
    def workers(self) -> int:
        """The processes that answer."""
        return 4 * self.nodes

    def serves(self, cost: Measured) -> float:
        """Verifications a second."""
        return self.workers * USED * 1e6 / cost.verification

    def asks(self, cost: Measured) -> dict[str, float]:
        """Cores of PostgreSQL, by what keeps them busy."""
        return {
            "leases": self.workers * RENEWALS * cost.renewal / 1e6,
            "misses": self.serves(cost) * MISSED * cost.miss / 1e6,
            "changes": CHANGES * (cost.change + STATEMENTS * self.workers * cost.renewal) / 1e6,
        }


FLEETS = (Fleet("one node", 1), Fleet("ten nodes", 10), Fleet("a region of a hundred", 100))


def measured() -> Measured:
    """The costs that ``make bench`` has written down."""
    found = json.loads((ROOT / "docs" / "benchmarks.json").read_text())["figures"]
    values = {figure["name"]: figure["value"] for figure in found}
    return Measured(
        values["CPU per forward-auth"],
        values["PostgreSQL: its CPU per renewal of a lease"],
        values["PostgreSQL: its CPU per verification of a key not in memory"],
        values["PostgreSQL: its CPU per change"],
    )


def table(cost: Measured) -> str:
    """The model, as a table."""
    lines = [
        "| | workers | verifications a second | PostgreSQL, in cores: leases | misses | changes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for fleet in FLEETS:
        asked = " | ".join(f"{cores:.3f}" for cores in fleet.asks(cost).values())
        lines.append(f"| {fleet.name} | {fleet.workers} | {round(fleet.serves(cost), -3):,.0f} | {asked} |")
    return "\n".join(lines) + "\n"


def write() -> None:
    """Put the table into its page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + table(measured()) + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    write()
