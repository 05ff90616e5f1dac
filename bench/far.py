"""A verification of a key that is not in memory, from a PostgreSQL on loopback, 32 at once: our own CPU time."""

import asyncio
import time
from contextlib import AbstractContextManager

from figure import Figure
from keywright import Keywright, profiles
from keywright.installation import open_installation
from keywright.model import Ask
from postgres import SECRET, Server, served

AT_ONCE = 32
KEYS = 640
NAME = f"cold verification, PostgreSQL on loopback, {AT_ONCE} at once, CPU"


def figures() -> list[Figure]:
    """The one."""
    serving: AbstractContextManager[Server] = served()
    with serving as server:
        url = server.make()
        open_installation(url, secret=SECRET, may_migrate=True).close()
        with Keywright(url, secret=SECRET, keyspace="default", environment="production") as kw:
            kw.keyspaces.apply(profiles.source("default"))
            kw.accounts.create("globex")
            made = [kw.keys.create(account="globex", name=f"Cold {n}", access="all") for n in range(KEYS)]
        tokens = [key.credential.token.reveal() for key in made]
        with Keywright(url, secret=SECRET, keyspace="default", environment="production") as kw:
            spent = asyncio.run(_verified(kw, tokens))
        server.drop(url)
    return [Figure(NAME, spent, "µs", 300, 120)]


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
