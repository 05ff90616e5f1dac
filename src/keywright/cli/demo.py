"""``keywright demo``: five key systems and an example API behind them, for as long as it runs.

Every line that is printed was tried a moment before, against the servers that it names.
"""

import asyncio
import http.client
import importlib.util
import os
import shutil
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import click

from keywright import profiles
from keywright.cli.opening import actor, settings
from keywright.errors import CannotStart
from keywright.installation import Keywright
from keywright.model import Issued
from keywright.presentations import curl, presentations
from keywright.profiles import MANAGEMENT_SCOPES


class System(NamedTuple):
    """One of the five: its profile, the account that has a key, and the read that its documentation shows."""

    profile: str
    account: str
    path: str


SYSTEMS: Final = (
    System("fullwhere", "northwind", "/partners/customer"),
    System("partna", "globex", "/v4/account"),
    System("atfinity", "initech", "/cases"),
    System("gallabox", "umbrella", "/devapi/me"),
    System("bizmagnets", "hooli", "/messages"),
)
_PREFIX: Final = "keywright-demo-"


@click.command("demo")
@click.option("--print", "again", is_flag=True, help="Print what the running demo printed, again.")
@click.option(
    "--port", type=click.IntRange(1, 65000), default=8700, show_default=True, help="The first port to try."
)
def command(*, again: bool, port: int) -> None:
    """Run five key systems and an example API, thrown away when stopped."""
    if again:
        click.echo(_printed(), nl=False)
        return
    try:
        from keywright.server import app
    except ModuleNotFoundError as missing:
        raise CannotStart(f"{missing.name} is not installed: pip install 'keywright[server]'") from None
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        _run(app, directory, port)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _run(app: ModuleType, directory: Path, port: int) -> None:
    import uvloop

    url = f"sqlite:///{directory / 'demo.db'}"
    first = _free(port)
    second = _free(first.getsockname()[1] + 1)
    with Keywright(url) as kw:
        found = settings(url, port=first.getsockname()[1])
        servers = (
            (app.server(app.build(Keywright(url).installation, found)), first),
            (app.server(_example().build(kw)), second),
        )
        issued = _furnish(kw)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(servers, kw, issued, directory))


async def _serve(servers: tuple, kw: Keywright, issued: dict[str, Issued], directory: Path) -> None:  # type: ignore[type-arg]
    tasks = [asyncio.create_task(server.serve(sockets=[taken])) for server, taken in servers]
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for server, _ in servers:
            server.should_exit = True

    while not all(server.started for server, _ in servers):  # noqa: ASYNC110  # uvicorn offers no event to wait for
        await asyncio.sleep(0.01)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    ports = [taken.getsockname()[1] for _, taken in servers]
    text = await asyncio.to_thread(_tell, kw, issued, *ports)
    (directory / "printed.txt").write_text(text, encoding="utf-8")
    (directory / "pid").write_text(str(os.getpid()), encoding="ascii")
    click.echo(text, nl=False)
    sys.stdout.flush()
    await asyncio.gather(*tasks)


def _furnish(kw: Keywright) -> dict[str, Issued]:
    """Make the keyspaces, an account and a key for each, and a management key; by profile name."""
    made = {}
    for system in SYSTEMS:
        kw.keyspaces.apply(profiles.source(system.profile), actor=actor())
        kw.accounts.create(system.account, actor=actor())
        made[system.profile] = kw.keys.create(
            keyspace=system.profile,
            account=system.account,
            environment="production",
            name="Demo",
            access="all",
            actor=actor(),
        )
    made["keywright"] = kw.keys.create_management(name="Demo", scopes=list(MANAGEMENT_SCOPES), actor=actor())
    return made


def _tell(kw: Keywright, issued: dict[str, Issued], keywright_port: int, host_port: int) -> str:
    """What is printed. Each line is tried on the way, and what it came to is what is said of it."""
    keywright_url, host_url = f"http://127.0.0.1:{keywright_port}", f"http://127.0.0.1:{host_port}"
    token = issued["keywright"].credential.token.reveal()
    lines = [
        f"Keywright     {keywright_url}   (its API: /v1/keys, /v1/verify, /authz/forward/KEYSPACE.ENVIRONMENT)",
        f"Example API   {host_url}   (protected by it: examples/host.py)",
        f"Database      {kw.installation.database.url}",
        "",
        "The management API",
        *_tried({"Authorization": f"Bearer {token}"}, f"{keywright_url}/v1/keys"),
    ]
    for system in SYSTEMS:
        key = issued[system.profile]
        space = kw.keyspaces.get(system.profile).keyspace
        url = host_url + system.path
        lines += ["", f"{space.title}: account {system.account}"]
        for shown in presentations(space, key.credential, system.account, url):
            lines += [
                *_tried(shown.headers, url),
                *_tried(_spoilt(shown.headers), url, "one character changed, "),
            ]
    return "\n".join(
        [*lines, "", "Stop with Ctrl-C; everything is thrown away. Again: keywright demo --print", ""]
    )


def _tried(headers: dict[str, str], url: str, how: str = "") -> list[str]:
    """A curl line under what it was answered with just now; a refusal with its body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        connection.request("GET", parts.path, headers=headers)
        answer = connection.getresponse()
        body = answer.read().decode()
    finally:
        connection.close()
    lines = [f"  {how}{answer.status}:", curl(headers, url)]
    return lines if answer.status == 200 else [*lines, f"  {body}"]


def _spoilt(headers: dict[str, str]) -> dict[str, str]:
    """The same headers with one character of the secret changed."""
    name = next(name for name in reversed(headers) if name != "x-api-user")
    value = headers[name]
    place = len(value) - 10
    other = "A" if value[place] != "A" else "B"
    return headers | {name: value[:place] + other + value[place + 1 :]}


def _free(port: int) -> socket.socket:
    """Take the first free port from this one on, on loopback."""
    for candidate in range(port, min(port + 200, 65536)):
        taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", candidate))
            taken.listen(512)
        except OSError:
            taken.close()
            continue
        return taken
    raise CannotStart(f"no port is free from {port} on")


def _example() -> ModuleType:
    """The example host: in the wheel beside this package, in a checkout in ``examples/``."""
    package = Path(__file__).parents[1]
    for file in (package / "examples" / "host.py", package.parents[1] / "examples" / "host.py"):
        if file.exists():
            spec = importlib.util.spec_from_file_location("keywright_example_host", file)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise CannotStart("the example host is missing from this installation")


def _printed() -> str:
    """What the newest demo that still runs has printed. Only directories of our own are looked at."""
    found = [
        path for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*") if path.stat().st_uid == os.getuid()
    ]
    for directory in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        with suppress(OSError, ValueError):
            os.kill(int((directory / "pid").read_text(encoding="ascii")), 0)
            return (directory / "printed.txt").read_text(encoding="utf-8")
    raise CannotStart("no demo is running; start one with keywright demo")
