"""What the tests run in processes of their own, so that they can be killed, locked out or counted apart.

``python child.py ROLE URL`` reads one JSON job a line and answers in JSON lines; ``Child`` is the test's end of it.
"""

import json
import os
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
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
def opened(url: str) -> Iterator[Any]:
    """The installation of the test, on the wall clock."""
    from keywright.installation import Keywright
    from postgres import SECRET

    secret = None if url.startswith("sqlite") else SECRET
    with Keywright(url, keyspace="every", environment="production", secret=secret) as kw:
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


def write(url: str, job: dict[str, Any]) -> None:
    """Change keys at random until killed; say what is about to be done, and again once it is acknowledged."""
    draw = random.Random(job["seed"])
    with opened(url) as kw:
        own: dict[str, str] = {}
        while True:
            verb = draw.choice(["create", "edit", "rotate", "invalidate", "spend"]) if own else "create"
            key = draw.choice(list(own)) if verb != "create" else ""
            say(doing=verb, key=key)
            if verb == "create":
                issued = kw.keys.create(account="globex", name="new", limits=["credits:1000000"])
                key = issued.key.id
                own[key] = issued.credential.token.reveal()
                say(done=verb, key=key, token=own[key])
            elif verb == "edit":
                name = f"name {draw.random()}"
                kw.keys.edit(key, name=name)
                say(done=verb, key=key, name=name)
            elif verb == "rotate":
                own[key] = kw.keys.rotate(key, force=True).credential.token.reveal()
                say(done=verb, key=key, token=own[key])
            elif verb == "invalidate":
                del own[key]
                kw.keys.invalidate(key)
                say(done=verb, key=key)
            else:
                verdict = kw.verify({"Authorization": f"Bearer {own[key]}"})
                say(done=verb, key=key, remaining=verdict.limits[0].remaining)


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
    elif role == "open":
        for line in sys.stdin:
            open_once(url, json.loads(line))
    else:
        with opened(url) as kw:
            for line in sys.stdin:
                {"hammer": hammer, "spend": spend}[role](kw, json.loads(line))


if __name__ == "__main__":
    main(*sys.argv[1:])
