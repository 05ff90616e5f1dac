"""``keywright demo``: five key systems and an example API behind them, for as long as it runs.

Every line that is printed was tried a moment before, against the servers that it names.
"""

import asyncio
import http.client
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import click

from keywright.cli.opening import actor
from keywright.errors import CannotStart

if TYPE_CHECKING:
    from keywright.installation import Keywright
    from keywright.model import Issued


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
OPERATOR: Final = "operator@example.com"
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
    signal.signal(signal.SIGTERM, _leave)
    for gone in _demos(running=False):
        shutil.rmtree(gone, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        (directory / "pid").write_text(str(os.getpid()), encoding="ascii")
        _run(app, directory, port)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)  # on the way out everything is thrown away


def _run(app: ModuleType, directory: Path, port: int) -> None:
    import uvloop

    from keywright import settings
    from keywright.installation import Keywright

    url = f"sqlite:///{directory / 'demo.db'}"
    first = _free(port)
    second = _free(first.getsockname()[1] + 1)
    # What this shell sets for an installation of its own must not reach into this one.
    found = settings.load({"database": url, "port": first.getsockname()[1]}, {})
    with Keywright(url) as kw:
        issued, password = _furnish(kw), secrets.token_urlsafe(18)
        _people(kw, password)
        servers = [
            (app.server(app.build(Keywright(url).installation, found)), first),
            (app.server(_example().build(kw)), second),  # which wants its keyspaces to be there
        ]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(app, servers, kw, issued, password, directory))


async def _serve(
    app: ModuleType,
    servers: list[tuple[Any, socket.socket]],
    kw: "Keywright",
    issued: "dict[str, Issued]",
    password: str,
    directory: Path,
) -> None:
    serving = asyncio.create_task(app.serve(servers))
    ports = [taken.getsockname()[1] for _, taken in servers]
    text = await asyncio.to_thread(_tell, kw, issued, password, *ports)
    (directory / "printed.txt").write_text(text, encoding="utf-8")
    with suppress(BrokenPipeError):
        click.echo(text, nl=False)
        sys.stdout.flush()
    await serving


def _furnish(kw: "Keywright") -> "dict[str, Issued]":
    """Make the keyspaces, an account and a key for each, and a management key; by profile name."""
    from keywright import profiles

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
    made["keywright"] = kw.keys.create_management(
        name="Demo", scopes=list(profiles.MANAGEMENT_SCOPES), actor=actor()
    )
    return made


def _people(kw: "Keywright", password: str) -> None:
    """Make an operator, and an admin for each account, who have chosen a password."""
    people, sessions = kw.installation.people, kw.installation.sessions
    invited = [people.appoint(OPERATOR, name="Demo operator", actor=actor())]
    for system in SYSTEMS:
        invited.append(
            people.invite(
                _admin(system), account=system.account, role="owner", name="Demo admin", actor=actor()
            )
        )
    for one in invited:
        sessions.end(sessions.follow(one.token, password).session, actor=actor())


def _admin(system: "System") -> str:
    return f"admin@{system.account}.example"


def _tell(
    kw: "Keywright", issued: "dict[str, Issued]", password: str, keywright_port: int, host_port: int
) -> str:
    """What is printed. Each line is tried on the way, and what it came to is what is said of it."""
    from keywright.presentations import presentations

    keywright_url, host_url = f"http://127.0.0.1:{keywright_port}", f"http://127.0.0.1:{host_port}"
    token = issued["keywright"].credential.token.reveal()
    lines = [
        f"Keywright     {keywright_url}   (its API: /v1/keys, /v1/verify, /authz/forward/KEYSPACE.ENVIRONMENT)",
        f"Example API   {host_url}   (protected by it: examples/host.py)",
        f"Database      {kw.installation.database.url}",
        f"Console       {keywright_url}/console/   (password {password} for everybody below)",
        f"              {OPERATOR} runs the installation",
        *(f"              {_admin(system)} looks after the keys of {system.account}" for system in SYSTEMS),
        "",
        "The management API",
        *_tried({"Authorization": f"Bearer {token}"}, f"{keywright_url}/v1/keys"),
        "",
        f"The portal: open the link of the answer, and look after the keys of {SYSTEMS[0].account} without a password",
        *_asked(token, f"{keywright_url}/v1/portal/sessions", SYSTEMS[0]),
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
    from keywright.presentations import curl

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


def _asked(token: str, url: str, system: System) -> list[str]:
    """A curl line that asks for a link of the portal, under what it was answered with just now."""
    from keywright.presentations import curl

    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps({"account": system.account, "keyspace": system.profile, "subject": _admin(system)})
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request("POST", urlsplit(url).path, body, headers)
        status = connection.getresponse().status
    finally:
        connection.close()
    return [f"  {status}:", f"{curl(headers, url)} -d '{body}'"]


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
    """What the newest demo that still runs has printed."""
    for directory in _demos(running=True):
        with suppress(OSError):
            return (directory / "printed.txt").read_text(encoding="utf-8")
    raise CannotStart("no demo is running; start one with keywright demo")


def _demos(*, running: bool) -> Iterator[Path]:
    """The directories of demos that run, or that were killed; newest first, and only those that are this user's."""
    found = Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")
    mine = [path for path in found if path.lstat().st_uid == os.getuid() and not path.is_symlink()]
    for directory in sorted(mine, key=lambda path: path.stat().st_mtime, reverse=True):
        with suppress(OSError, ValueError):
            if _runs(int((directory / "pid").read_text(encoding="ascii"))) == running:
                yield directory


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
