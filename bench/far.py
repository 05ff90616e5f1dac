"""Verifications on a PostgreSQL on loopback, our own CPU time: of keys not in memory, 32 at once; over HTTP, in memory."""

import asyncio
import os
import statistics
import time
from contextlib import AbstractContextManager

import over_http
from figure import Figure
from keywright import Keywright, profiles
from keywright.installation import open_installation
from keywright.model import Ask
from postgres import SECRET, Server, served

AT_ONCE = 32
KEYS = 640
ROUNDS = 5
NAME = f"cold verification, PostgreSQL on loopback, {AT_ONCE} at once, CPU"


def figures(gate: str, limits: list[str]) -> list[Figure]:
    """All of them. ``gate`` and ``limits`` are those of the figures over HTTP on SQLite."""
    serving: AbstractContextManager[Server] = served()
    with serving as server:
        url = server.make()
        open_installation(url, secret=SECRET, may_migrate=True).close()
        with Keywright(url, secret=SECRET, keyspace="default", environment="production") as kw:
            kw.keyspaces.apply(profiles.source("default") + gate)
            kw.accounts.create("globex")
            made = [kw.keys.create(account="globex", name=f"Cold {n}", access="all") for n in range(KEYS)]
            key = kw.keys.create(account="globex", name="Bench", access="all", limits=limits)
            caller = kw.keys.create_management(name="Bench", scopes=["verify"])
        tokens = [key.credential.token.reveal() for key in made]
        rounds = []
        for _ in range(ROUNDS):
            with Keywright(url, secret=SECRET, keyspace="default", environment="production") as kw:
                rounds.append(asyncio.run(_verified(kw, tokens)))
        os.environ["KEYWRIGHT_SECRET"] = SECRET
        shown = (one.credential.token.reveal() for one in (key, caller))
        found = over_http.against(url, *shown, where="PostgreSQL")
        del os.environ["KEYWRIGHT_SECRET"]
        server.drop(url)
    return [Figure(NAME, statistics.median(rounds), "µs", 300, 120), *found]


async def _verified(kw: Keywright, tokens: list[str]) -> float:
    """Microseconds of CPU per verification."""
    ask, engine, clock = (
        Ask("default", "production", ("contacts:read",)),
        kw.installation.engine,
        kw.installation.clock,
    )
    waiting = iter(tokens)

    async def client() -> None:
        for token in waiting:
            verdict = await engine.averify(ask, [(b"authorization", b"Bearer " + token.encode())], clock())
            assert verdict.valid

    await engine.averify(ask, [(b"authorization", b"Bearer " + next(waiting).encode())], clock())
    began = time.process_time()
    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return (time.process_time() - began) / (len(tokens) - 1) * 1e6
