"""Promise 2 among many processes, played through with everything that can go wrong, thousands of times."""

import os

import pytest

from fleet_simulation import Variant, run

RUNS = 20_000 if os.environ.get("KEYWRIGHT_PROOF") else 300
#: Each way to break the protocol, and a seed whose run shows it. Another is found by trying: see ``fleet_simulation``.
SHOWN_BY = {
    "waits": 0,
    "from_before": 319,
    "versioned": 2,
    "acts_first": 1,
    "clocks_agree": 1276,
    "sweeps_late": 0,
    "renames": 185,
    "durable": 2271,
    "registers_stale": 0,
    "tells_gaps": 8,
}


@pytest.mark.security("R-23", "T-27", "T-28")
@pytest.mark.full("twenty thousand runs")
def test_no_success_begins_after_a_change_was_answered() -> None:
    """In no run does a success begin after a change was answered on the state before it, but for those the answer names."""
    worlds = [run(seed) for seed in range(RUNS)]

    assert [late for world in worlds for late in world.late] == []
    assert sum(world.successes for world in worlds) > 500 * RUNS
    assert sum(world.served_stale for world in worlds) > 10 * RUNS
    assert sum(len(world.answered) for world in worlds) > 5 * RUNS
    assert sum(world.gaps_told for world in worlds) > RUNS // 10


@pytest.mark.security("R-23")
@pytest.mark.parametrize("broken", Variant._fields)
def test_the_simulation_finds_what_is_broken(broken: str) -> None:
    """Take away any one of the things that the protocol rests on, and a run shows a late success."""
    seed = SHOWN_BY[broken]

    assert run(seed, Variant(**{broken: False})).late != []
    assert run(seed).late == []


def test_a_seed_gives_the_same_run() -> None:
    """What a seed has shown, it shows again."""
    first, again = run(3), run(3)

    assert (first.successes, first.answered, first.now) == (again.successes, again.answered, again.now)
