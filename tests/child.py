"""What the tests run in processes of their own, so that they can be killed, locked out or counted apart.

``python child.py ROLE URL`` reads one JSON job a line and answers in JSON lines; ``Child`` is the test's end of it.
"""

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

PATIENCE = 60  # seconds that nobody should ever need


class Child:
    """A process that does jobs. Leaving the block ends it."""

    def __init__(self, role: str, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, role, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def send(self, **job: Any) -> None:
        """Give it a job."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """The next thing that it says; empty where it has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        said: dict[str, Any] = json.loads(line) if line else {}
        return said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()


def say(**said: Any) -> None:
    """Tell the test; one write, so that a kill leaves a whole line or none."""
    os.write(1, json.dumps(said).encode() + b"\n")


@contextmanager
def opened(url: str, *, standing: bool = False) -> Iterator[Any]:
    """The installation of the test, on the wall clock, or on one that stands still."""
    from keywright.clock import process_clock
    from keywright.installation import Keywright
    from keywright.testing import Clock
    from postgres import SECRET

    secret = None if url.startswith("sqlite") else SECRET
    clock = Clock() if standing else process_clock
    with Keywright(url, keyspace="every", environment="production", secret=secret, clock=clock) as kw:
        yield kw


def open_once(url: str, job: dict[str, Any]) -> None:
    """Open it, say what became of that, and close it."""
    from keywright.errors import CannotStart

    try:
        with opened(job.get("url", url)) as kw:
            say(opened=True, canaries=sorted(kw.installation.keyring.peppers))
    except CannotStart as refusal:
        say(opened=False, said=str(refusal))


def hammer(kw: Any, job: dict[str, Any]) -> None:
    """Verify one key in a tight loop until it is refused, and for a while after; say when the last success began."""
    ask = {"scopes": tuple(job["scopes"])}
    headers = [(name.lower().encode(), value.encode()) for name, value in job["headers"].items()]
    successes = last = refused = late = 0
    asked = asked_at_last = kw.installation.lookup.statements
    code = ""
    until = time.monotonic() + PATIENCE
    while refused < 20 and time.monotonic() < until:
        began = time.monotonic_ns()
        verdict = kw.verify(headers, **ask)
        if verdict.code == "ok":
            late += refused > 0
            successes, last = successes + 1, began
            if successes == 3:
                asked = kw.installation.lookup.statements
                say(warm=True)
            asked_at_last = kw.installation.lookup.statements
        else:
            refused, code = refused + 1, verdict.code
    say(last=last, successes=successes, code=code, late=late, statements=asked_at_last - asked)


def spend(kw: Any, job: dict[str, Any]) -> None:
    """Spend until refused; say how often it was granted."""
    granted = 0
    while (verdict := kw.verify(job["headers"])).code == "ok":
        granted += 1
    say(granted=granted, code=verdict.code)


def timed(kw: Any, job: dict[str, Any]) -> None:
    """Call at a given instant until refused, or so many times; say how often it was granted."""
    from datetime import datetime

    kw.installation.clock.at = datetime.fromisoformat(job["at"])
    codes = [kw.verify(headers).code for _ in range(job["times"]) for headers in job["headers"]]
    say(granted=codes.count("ok"), codes=sorted(set(codes)))


def calls(kw: Any, job: dict[str, Any]) -> None:
    """Call on some threads, so many times each or until refused, saying each verdict; then wait to be killed."""
    pause, pid = threading.Event(), os.getpid()

    def run() -> None:
        for _ in range(job.get("times", 10**9)):
            code = kw.verify(job["headers"]).code
            say(pid=pid, code=code)
            if code not in ("ok", "unavailable"):
                return
            if "pace" in job:
                pause.wait(job["pace"])

    threads = [threading.Thread(target=run) for _ in range(job.get("threads", 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say(pid=pid, done=True)
    if job.get("stay"):
        pause.wait()


def die_flushing(kw: Any, job: dict[str, Any]) -> None:
    """Count, flush, and be killed before the store's answer is heard."""
    for _ in range(job["times"]):
        kw.verify(job["headers"])
    kw.installation.slots.flushed = lambda _generation: os.kill(os.getpid(), signal.SIGKILL)
    kw.installation.meter.flush()


def forked(kw: Any, job: dict[str, Any]) -> None:
    """Call, fork, and call in both; the child is killed, as a prefork server's may be."""
    for _ in range(job["times"]):
        kw.verify(job["headers"])
    pid = os.fork()
    for _ in range(job["times"]):
        kw.verify(job["headers"])
    if pid == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    say(done=True)


def farm(url: str) -> None:
    """Fork a worker for each job from a process that has everything imported; the workers say what they do."""
    import keywright.installation

    assert keywright.installation
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                with opened(url) as kw:
                    {"calls": calls, "die_flushing": die_flushing, "forked": forked}[job["role"]](kw, job)
                say(pid=os.getpid(), closed=True)
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        say(started=pid)


def change(kw: Any, draw: random.Random, own: dict[str, str], tell: Callable[..., None]) -> None:
    """Change a key at random, or spend with it; tell what is about to be done, and again once it is acknowledged."""
    verb = draw.choice(["create", "edit", "rotate", "invalidate", "spend"]) if own else "create"
    key = draw.choice(list(own)) if verb != "create" else ""
    tell(doing=verb, key=key)
    if verb == "create":
        issued = kw.keys.create(account="globex", name="new", limits=["credits:1000000"])
        key = issued.key.id
        own[key] = issued.credential.token.reveal()
        tell(done=verb, key=key, token=own[key])
    elif verb == "edit":
        name = f"name {draw.random()}"
        kw.keys.edit(key, name=name)
        tell(done=verb, key=key, name=name)
    elif verb == "rotate":
        own[key] = kw.keys.rotate(key, force=True).credential.token.reveal()
        tell(done=verb, key=key, token=own[key])
    elif verb == "invalidate":
        del own[key]
        kw.keys.invalidate(key)
        tell(done=verb, key=key)
    else:
        verdict = kw.verify({"Authorization": f"Bearer {own[key]}"})
        tell(done=verb, key=key, remaining=verdict.limits[0].remaining)


def write(url: str, job: dict[str, Any]) -> None:
    """Change keys at random until killed."""
    draw, own = random.Random(job["seed"]), dict[str, str]()
    with opened(url) as kw:
        while True:
            change(kw, draw, own, say)


def mark(**said: Any) -> None:
    """Tell it to the log of what this process does to files, in its order: see ``power.c``."""
    text = json.dumps(said).encode()
    ctypes.CDLL(None).power_mark(text, ctypes.c_size_t(len(text)))


def powered(url: str, job: dict[str, Any]) -> None:
    """Change keys, and do at random what else is acknowledged, so many times; ``levels`` is how durably SQLite commits."""
    from keywright import slots
    from keywright.store import db

    slots.boot = lambda: job["boot"]
    db._SYNCHRONOUS.update(job.get("levels", {}))
    db.CHECKPOINT_AT = 150_000  # so that logs are folded back and begun again
    draw, own, counted = random.Random(job["seed"]), dict[str, str](), 0
    with opened(url) as kw:
        purse = kw.keys.create(account="globex", name="purse", limits=["credits:40"])
        token = purse.credential.token.reveal()
        mark(done="purse", key=purse.key.id, token=token)
        for _ in range(job["times"]):
            match draw.choice(["change", "change", "change", "purse", "settle", "leak", "carry", "fold"]):
                case "change":
                    change(kw, draw, own, mark)
                case "purse":
                    mark(doing="grant", key="")
                    mark(done="grant", granted=kw.verify({"Authorization": f"Bearer {token}"}).code == "ok")
                    counted += 1
                case "settle":
                    kw.installation.meter.settle()
                    mark(done="settle", times=kw.installation.usage.report(by="total").total)
                case "leak":
                    kw.installation.leaks.matched([(token, None)])
                    mark(done="leak", key=purse.key.id)
                case "carry":
                    kw.installation.courier._carry()
                case "fold":
                    kw.installation.database.checkpoint()


def commands(_url: str, job: dict[str, Any]) -> None:
    """Run commands, one after the other, and mark each that was done."""
    from keywright.cli import main as cli

    for arguments in job["commands"]:
        assert cli(arguments) == 0
        mark(done=arguments)


def nursery(url: str) -> None:
    """Fork a writer for each job from a process that has everything imported, and say when it has ended."""
    import alembic.command
    import sqlalchemy.dialects.sqlite

    import keywright.installation  # noqa: F401  # for the children

    assert alembic.command
    assert sqlalchemy.dialects.sqlite
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                write(url, json.loads(line))
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        say(pid=pid)
        os.waitpid(pid, 0)
        say(ended=pid)


def main(role: str, url: str) -> None:
    """Do one role's jobs until there are no more."""
    if role == "nursery":
        nursery(url)
    elif role == "farm":
        farm(url)
    elif role in ("powered", "commands"):
        for line in sys.stdin:
            {"powered": powered, "commands": commands}[role](url, json.loads(line))
    elif role == "open":
        for line in sys.stdin:
            open_once(url, json.loads(line))
    else:
        with opened(url, standing=role == "timed") as kw:
            for line in sys.stdin:
                {"hammer": hammer, "spend": spend, "timed": timed}[role](kw, json.loads(line))


if __name__ == "__main__":
    main(*sys.argv[1:])
