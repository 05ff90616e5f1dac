"""Linearizability: what concurrent calls were answered has an order in which each happens between its call and its answer.

The checker is the just-in-time linearization of Wing and Gong's search (Lowe, "Testing for linearizability", 2017): it
reads a history of calls and answers, and keeps every state that the object can be in, with the calls that must have taken
effect for it although they are not answered yet. A call that is answered has taken effect in each of them, or the state is
impossible; where none is left, there is no such order.
"""

import random
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from typing import Any, NamedTuple

import pytest

from conftest import again, bearer, make
from keywright import Keywright

pytestmark = pytest.mark.stores

THREADS = 6
OPERATIONS = 10_000
EVERY = {"keyspace": "every", "environment": "production", "method": "GET"}


class Operation(NamedTuple):
    """One call: what was asked, what was answered, and when each was, on one scale that grows."""

    asked: Any
    answered: Any
    called: int
    returned: int


#: What a state becomes by a call that was answered so; nothing where it cannot be answered so in that state.
Step = Callable[[Any, Any, Any], Hashable | None]


def unexplained(history: Sequence[Operation], start: Hashable, step: Step) -> Operation | None:
    """The first answer that no order of what happened explains; ``None`` where there is such an order."""
    events = sorted(
        [(one.called, n, False) for n, one in enumerate(history)]
        + [(one.returned, n, True) for n, one in enumerate(history)]
    )
    pending: set[int] = set()
    possible: set[tuple[Any, frozenset[int]]] = {(start, frozenset())}
    for _, n, returned in events:
        if not returned:
            pending.add(n)
            continue
        reached = _closed(possible, pending, history, step)
        possible = {(state, done - {n}) for state, done in reached if n in done}
        pending.discard(n)
        if not possible:
            return history[n]
    return None


def _closed(
    possible: set[tuple[Any, frozenset[int]]], pending: set[int], history: Sequence[Operation], step: Step
) -> set[tuple[Any, frozenset[int]]]:
    """With all that follows when calls that are not answered yet take effect, in any order."""
    found, new = set(possible), list(possible)
    while new:
        state, done = new.pop()
        for n in pending - done:
            after = step(state, history[n].asked, history[n].answered)
            follows = after, done | {n}
            if after is not None and follows not in found:
                found.add(follows)
                new.append(follows)
    return found


def record(
    calls: Sequence[Callable[[random.Random], tuple[Any, Any]]], many: int, seed: int
) -> list[Operation]:
    """Let as many threads as there are calls each do its own again and again; what happened, ``many`` times in all."""
    tick, gate = count(), threading.Barrier(len(calls))

    def work(place: int) -> list[Operation]:
        draw, done = random.Random(seed + place), []
        gate.wait()
        for _ in range(many // len(calls)):
            called = next(tick)
            asked, answered = calls[place](draw)
            done.append(Operation(asked, answered, called, next(tick)))
        return done

    with ThreadPoolExecutor(len(calls)) as pool:
        return [one for found in pool.map(work, range(len(calls))) for one in found]


def status(state: str, asked: str, answered: str) -> str | None:
    """A key that is enabled and disabled."""
    if asked == "verify":
        return state if answered == {"active": "ok", "disabled": "disabled"}[state] else None
    return {"enable": "active", "disable": "disabled"}[asked]


def balance(state: int, asked: int, answered: str) -> int | None:
    """Credits that are spent: granted where there are as many, and refused where there are not."""
    if answered == "ok":
        return state - asked if state >= asked else None
    return state if answered == "quota_exhausted" and state < asked else None


@pytest.mark.security("R-24")
def test_a_keys_status_is_linearizable(kw: Keywright) -> None:
    """Of 10,000 calls in two openings at once, some of which stop and start the key, no verification sees a state out of turn."""
    key = make(kw)
    with ExitStack() as stack:
        other = stack.enter_context(again(kw, clock=kw.installation.clock))

        def verifies(at: Keywright) -> Callable[[random.Random], tuple[Any, Any]]:
            return lambda _draw: ("verify", at.verify(bearer(key), **EVERY).code)

        def changes(at: Keywright) -> Callable[[random.Random], tuple[Any, Any]]:
            def change(draw: random.Random) -> tuple[Any, Any]:
                if draw.random() < 0.8:
                    return "verify", at.verify(bearer(key), **EVERY).code
                act = draw.choice(["enable", "disable"])
                getattr(at.keys, act)(key.key.id)
                return act, None

            return change

        history = record([verifies(kw), verifies(other)] * 2 + [changes(kw), changes(other)], OPERATIONS, 7)

    assert {one.answered for one in history} == {"ok", "disabled", None}
    assert len(history) >= OPERATIONS - THREADS
    assert unexplained(history, "active", status) is None


@pytest.mark.security("R-24")
def test_credits_are_linearizable(kw: Keywright) -> None:
    """Of 10,000 calls that spend credits of different costs at once, each is granted or refused by the balance in its turn."""
    whole = OPERATIONS * 2
    key = make(kw, limits=[f"credits:{whole}"])

    def spend(draw: random.Random) -> tuple[Any, Any]:
        cost = draw.randint(1, 5)
        return cost, kw.verify(bearer(key), cost=cost, **EVERY).code

    history = record([spend] * THREADS, OPERATIONS, 11)

    assert {one.answered for one in history} == {"ok", "quota_exhausted"}
    assert unexplained(history, whole, balance) is None
    assert sum(one.asked for one in history if one.answered == "ok") == whole


@pytest.mark.sqlite_only("no database has a part in it")
@pytest.mark.parametrize(
    ("history", "found"),
    [
        ([("disable", None, 0, 1), ("verify", "ok", 2, 3)], 1),
        ([("disable", None, 0, 3), ("verify", "ok", 1, 2)], None),
        ([("disable", None, 0, 5), ("verify", "disabled", 1, 2), ("verify", "ok", 3, 4)], 2),
        ([("disable", None, 0, 5), ("enable", None, 1, 2), ("verify", "disabled", 3, 4)], None),
        ([("verify", "disabled", 0, 1), ("disable", None, 2, 3)], 0),
    ],
)
def test_the_checker_tells_an_order_from_none(
    history: list[tuple[Any, Any, int, int]], found: int | None
) -> None:
    """A stale answer, an answer from the future and one that goes back are found; overlapping calls may go either way."""
    operations = [Operation(*one) for one in history]
    assert unexplained(operations, "active", status) == (None if found is None else operations[found])
