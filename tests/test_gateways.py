"""Real proxies with the configurations that ``keywright gateway config`` prints, all on this machine: what they let through."""

import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import bearer, make
from keywright import Issued, Keywright
from keywright.errors import Unavailable
from keywright.gateways import IDENTITY, RECIPES
from keywright.gateways.echo import Echo
from keywright.gateways.probes import PROBES, Note, Seen, Through, probe
from keywright.presentations import presentations
from keywright.testing import Clock, copied
from processes import PATIENCE, Folder, Running, surroundings
from surfaces import served, server, token

PROXIES = ("nginx", "nginx-accel", "traefik", "caddy", "envoy", "haproxy")
#: What a proxy cannot do.
CANNOT = {("traefik", "limits")}
#: How each says that Keywright does not answer.
DOWN = {"nginx": 503, "nginx-accel": 503, "traefik": 500, "caddy": 502, "envoy": 503, "haproxy": 503}
_PLACE = re.compile(r"@[A-Za-z_]+@")


def free() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def program(name: str) -> str:
    """A proxy's program: from the package's own wheel, or of this machine; Debian keeps some of them out of the way."""
    own = Path(sys.executable).with_name(name)
    found = (
        str(own)
        if own.exists()
        else shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    )
    assert found, f"{name} is not installed: `make test` installs it on Debian"
    return found


def recipe(name: str, folder: Path, keywright: int, upstream: int, listen: int) -> str:
    """What the command prints."""
    ran = Folder(folder)(
        "gateway", "config", name, "--gate", "shop", "--header", "X-Token",
        "--keywright", f"http://127.0.0.1:{keywright}", "--upstream", f"http://127.0.0.1:{upstream}",
        "--listen", f"127.0.0.1:{listen}",
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    return ran.out


NGINX = """daemon off; master_process off; pid nginx.pid; error_log error.log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  include {file};
}}
"""


def command_of(name: str, folder: Path, text: str) -> list[str]:
    """Write a configuration where it belongs; the command that runs the proxy with it, as its comment says."""
    (folder / RECIPES[name]).write_text(text)
    if name.startswith("nginx"):
        (folder / "whole.conf").write_text(NGINX.format(file=RECIPES[name]))
        return [program("nginx"), "-p", str(folder), "-e", "stderr", "-c", "whole.conf"]
    (said,) = re.findall(r"^#   (\w+ .*)$", text, re.MULTILINE)
    if name == "traefik":
        (folder / RECIPES[name]).rename(folder / "keywright.yml")
    if name == "caddy":
        (folder / RECIPES[name]).write_text("{\n\tadmin off\n\tpersist_config off\n}\n" + text)
    words = said.split()
    more = {"envoy": ["--concurrency", "1", "--disable-hot-restart", "-l", "error"], "haproxy": ["-db"]}
    return [program(words[0]), *words[1:], *more.get(name, [])]


@contextmanager
def proxy(name: str, folder: Path, keywright: int, upstream: int, *changes: tuple[str, str]) -> Iterator[str]:
    """Run a proxy with its recipe, until the block ends; ``changes`` are put otherwise in it."""
    listen = free()
    text = recipe(name, folder, keywright, upstream, listen)
    for written, put in changes:
        assert text.count(written) == 1
        text = text.replace(written, put)
    command = command_of(name, folder, text)
    if name == "haproxy":
        (folder / "keywright.lua").write_text(recipe("haproxy-lua", folder, keywright, upstream, listen))
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    log = (folder / "said").open("wb")
    process = subprocess.Popen(
        command, cwd=folder, env=surroundings(**home), stdin=subprocess.DEVNULL, stdout=log, stderr=log
    )
    try:
        listens(process, listen, folder / "said")
        yield f"http://127.0.0.1:{listen}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def listens(process: subprocess.Popen[bytes], port: int, said: Path) -> None:
    """Wait until a proxy answers; Traefik knows no route until it has read all."""
    asking = Through(f"http://127.0.0.1:{port}", "/things/1", [])
    for _ in range(int(PATIENCE / 0.02)):
        with suppress(Unavailable):
            if asking.send().status != 404:
                return
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
            break
    raise AssertionError(said.read_text(errors="replace"))


class Stage(NamedTuple):
    """An installation that is served, and what stands behind the proxies."""

    kw: Keywright
    keywright: int
    upstream: int
    folder: Path
    running: dict[str, str]
    ending: ExitStack

    def url(self, name: str) -> str:
        """Where a proxy listens; it is started when it is first asked for."""
        if name not in self.running:
            at = self.folder / name
            at.mkdir()
            self.running[name] = self.ending.enter_context(proxy(name, at, self.keywright, self.upstream))
        return self.running[name]

    def through(self, name: str, key: Issued | None = None, path: str = "/things/1") -> Through:
        """Requests through a proxy, with a key that may do all unless another is given."""
        return Through(self.url(name), path, list(bearer(key or make(self.kw)).items()), "shop")


@contextmanager
def echoing() -> Iterator[int]:
    """What stands behind a proxy."""
    with Echo("127.0.0.1", 0) as echo:
        thread = threading.Thread(target=echo.serve_forever)
        thread.start()
        yield echo.server_address[1]
        echo.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def stage(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The stage, for all tests of a process."""
    folder = tmp_path_factory.mktemp("gateways")
    with (
        copied(template, folder, clock=Clock()) as kw,
        served(server(kw, trusted_proxies="127.0.0.1")) as keywright,
        echoing() as upstream,
        ExitStack() as ending,
    ):
        yield Stage(kw, keywright, upstream, folder, {}, ending)


# ----------------------------------------------------------------------------------------------- every row, every proxy


@pytest.mark.parametrize("row", PROBES)
@pytest.mark.parametrize("name", PROXIES)
def test_what_check_sends(stage: Stage, name: str, row: str) -> None:
    """Each row of ``keywright gateway check`` holds on every proxy with its recipe, but for what one cannot do."""
    through = stage.through(name, make(stage.kw, limits=["1000/day"]))
    if row == "body":
        through.path = "/things"
    if (name, row) in CANNOT:
        with pytest.raises(Note):
            PROBES[row][1](through)
    else:
        assert PROBES[row][1](through)


@pytest.mark.parametrize("name", PROXIES)
def test_a_missing_scope_is_403(stage: Stage, name: str) -> None:
    """A refusal for a scope reaches the client with its status, its body and the scope in its challenge."""
    key = make(stage.kw, access="restricted", scopes=["things:read"])
    through = stage.through(name, key, "/things")

    refused = through.send(through.key, method="POST")

    told(refused, 403, "insufficient_scope")
    assert refused.all("www-authenticate") == [
        'Bearer realm="Every", error="insufficient_scope", scope="things:write"'
    ]


@pytest.mark.parametrize("name", PROXIES)
def test_what_is_spent_is_429(stage: Stage, name: str) -> None:
    """A spent quota reaches the client as 429, with Retry-After, RateLimit and the body; each request is charged once."""
    through = stage.through(name, make(stage.kw, limits=["2/day"]))

    seen = [through.send(through.key) for _ in range(3)]

    assert [one.status for one in seen] == [200, 200, 429]
    told(seen[2], 429, "quota_exhausted")
    assert seen[2].all("retry-after") == ["43170"]
    assert seen[2].all("ratelimit") == ['"quota-day";r=0;t=43170']
    if (name, "limits") not in CANNOT:
        assert [one.all("ratelimit") for one in seen[:2]] == [[f'"quota-day";r={n};t=43170'] for n in (1, 0)]


@pytest.mark.parametrize("name", PROXIES)
def test_a_path_with_two_readings_is_400(stage: Stage, name: str) -> None:
    """A path that Keywright refuses is 400 for the client, by Keywright or by the proxy before it."""
    through = stage.through(name)

    seen = through.send(through.key, target="/things/1;v=2")

    told(seen, 400, "ambiguous_path")


def told(seen: Seen, status: int, code: str) -> None:
    """Assert that an answer is Keywright's own."""
    assert (seen.status, seen.code, seen.arrived) == (status, code, None)
    assert seen.all("content-type") == ["application/problem+json"]
    assert seen.all("cache-control") == ["no-store"]


@pytest.mark.parametrize("name", PROXIES)
def test_no_scheme_leaves_the_key_with_the_upstream(stage: Stage, name: str) -> None:
    """Whatever scheme a key comes in, the upstream has none of its headers, and of the others all."""
    key = make(stage.kw)
    keyspace = stage.kw.installation.keys.keyspace_of(key.key)
    for way in presentations(keyspace, key.credential, "globex", "http://localhost"):
        through = Through(stage.url(name), "/things/1", list(way.headers.items()), "shop")
        seen = through.send([*through.key, ("X-Other", "stays"), ("Cookie", "a=b")])

        assert seen.came("x-keywright-key") == [key.key.id]
        assert [header for header in way.headers if seen.came(header.lower())] == []
        assert seen.came("x-other") == ["stays"]
        assert len(seen.came("cookie")) == 1


@pytest.mark.parametrize("name", PROXIES)
def test_the_answer_is_the_upstreams_own(stage: Stage, name: str) -> None:
    """Of what Keywright says nothing but its limits is in an allowed answer: neither its caching nor its identity."""
    seen = stage.through(name).send(bearer(make(stage.kw)).items())  # type: ignore[arg-type]

    assert seen.all("cache-control") == ["max-age=60"]
    assert seen.all("content-type") == ["application/json"]
    assert [
        header
        for header, _ in seen.headers
        if header.lower().startswith(("x-keywright", "x-authz", "x-accel"))
    ] == []


@pytest.mark.parametrize("name", PROXIES)
def test_nothing_passes_while_keywright_is_away(stage: Stage, name: str, tmp_path: Path) -> None:
    """Where Keywright cannot be reached a right key and none are both refused, and not as if the key were wrong."""
    with proxy(name, tmp_path, free(), stage.upstream) as url:
        through = Through(url, "/things/1", list(bearer(make(stage.kw)).items()))
        for headers in ((), through.key):
            seen = through.send(headers)

            assert (seen.status, seen.arrived) == (DOWN[name], None)


class From(Through):
    """Requests that come from an address of this machine's own choosing: all of 127.0.0.0/8 is its own."""

    def __init__(self, address: str, url: str, key: Issued) -> None:
        super().__init__(url, "/things/1", list(bearer(key).items()))
        self._address = address

    def _connected(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), 10, source_address=(self._address, 0))


@pytest.mark.security("T-35")
@pytest.mark.parametrize("name", PROXIES)
def test_an_address_cannot_be_made_up(stage: Stage, name: str) -> None:
    """A key that is bound to an address works from there through every proxy, and from elsewhere by no header of a client's."""
    key, url = make(stage.kw, allowed_ips=["127.0.0.3/32"]), stage.url(name)
    forged = [("X-Forwarded-For", "127.0.0.3"), ("X-Real-IP", "127.0.0.3"), ("Forwarded", "for=127.0.0.3")]

    right, wrong = From("127.0.0.3", url, key), From("127.0.0.2", url, key)

    assert right.send(right.key).status == 200
    assert wrong.send(wrong.key).code == "ip_not_allowed"
    assert wrong.send([*wrong.key, *forged]).code == "ip_not_allowed"


# ------------------------------------------------------------------------------------------------------------- the check


def test_the_check_says_that_all_is_well(stage: Stage, tmp_path: Path) -> None:
    """On a proxy with its recipe the check ends with 0, and says every row; the key may come in three ways."""
    key = make(stage.kw, limits=["1000/day"])
    (tmp_path / "key.env").write_text(f"API_KEY_ID={key.key.id}\nAPI_KEY_TOKEN={token(key)}\n")
    command, asking = (
        Folder(tmp_path),
        ("gateway", "check", stage.url("nginx"), "--path", "/things/1", "--gate", "shop"),
    )
    ways = [
        command(*asking, "--json", KEYWRIGHT_GATEWAY_KEY=token(key)),
        command(*asking, "--json", given=f"{token(key)}\n"),
        command(*asking, "--json", given=f"Authorization: Bearer {token(key)}\n"),
        command(*asking, "--json", "--env-file", "key.env"),
    ]

    for ran in ways:
        assert (ran.code, ran.json["ok"]) == (0, True)
        assert [item["check"] for item in ran.json["items"]] == list(PROBES)
        assert token(key) not in ran.out
    shown = command(*asking, given=token(key))
    assert shown.code == 0
    assert re.search(r"^ok +no key +401 missing, and the upstream was not asked$", shown.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("change", "row"),
    [
        (("X-Original-URI    $request_uri;", "X-Original-URI    $uri;"), "paths"),
        (("proxy_set_header X-Keywright-Account $keywright_account;", ""), "right key"),
        (("proxy_set_header X-Keywright-Scopes $keywright_scopes;", ""), "forged identity"),
        (("proxy_set_header Authorization", "#"), "hidden key"),
        (("underscores_in_headers off", "underscores_in_headers on"), "underscores"),
        (("auth_request /_keywright;", ""), "right key"),
        (("error_page 401 403 = @keywright_refused;", ""), "no key"),
    ],
)
def test_the_check_sees_a_missing_line(
    stage: Stage, tmp_path: Path, change: tuple[str, str], row: str
) -> None:
    """Where a protective line is not there, the row that it is for fails, and the check ends with 1."""
    with proxy("nginx", tmp_path, stage.keywright, stage.upstream, change) as url:
        assert row in failing(stage, url, tmp_path)


def test_the_check_sees_a_client_that_is_believed(stage: Stage, tmp_path: Path) -> None:
    """Where a proxy takes the client's word for the target, as Traefik can be told to, the row for that fails."""
    changes = [
        ("trustForwardHeader: false", "trustForwardHeader: true"),
        ("--providers", "--entryPoints.keywright.forwardedHeaders.insecure=true --providers"),
    ]
    with proxy("traefik", tmp_path, stage.keywright, stage.upstream, *changes) as url:
        assert failing(stage, url, tmp_path) == ["forged target"]


def failing(stage: Stage, url: str, folder: Path) -> list[str]:
    """The rows that the command says fail."""
    asking = ("gateway", "check", url, "--path", "/things/1", "--gate", "shop", "--json")
    ran = Folder(folder)(*asking, given=token(make(stage.kw)))
    assert (ran.code, ran.json["ok"]) == (1, False)
    return [item["check"] for item in ran.json["items"] if item["level"] == "failed"]


def test_without_the_echo_nothing_can_be_said(stage: Stage, tmp_path: Path) -> None:
    """Where something else than the echo stands behind the proxy, or nothing answers, that is said."""
    with proxy("nginx", tmp_path, stage.keywright, stage.keywright) as url:
        through = Through(url, "/livez", list(bearer(make(stage.kw)).items()))
        (finding,) = probe(through)
    assert (finding.level, "gateway echo" in finding.says) == ("failed", True)

    ran = Folder(tmp_path)("gateway", "check", f"http://127.0.0.1:{free()}", given="x")
    assert (ran.code, "gave no answer" in ran.err) == (3, True)


@pytest.mark.parametrize("path", ["/things/1 HTTP/1.1\r\nX: y", "things", "", "/ä"])
def test_what_cannot_be_asked_for_is_refused(tmp_path: Path, path: str) -> None:
    """A path that is none, and a key that is none, are refused before anything is sent."""
    command, url = Folder(tmp_path), f"http://127.0.0.1:{free()}"

    assert command("gateway", "check", url, "--path", path, given="x").code == 1
    assert command("gateway", "check", url, given="").code == 2
    assert command("gateway", "check", "nowhere", given="x").code == 1


# ------------------------------------------------------------------------------------------------------------ the recipes


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_filled_in(tmp_path: Path, name: str) -> None:
    """Nothing is left open in what is printed, and the profile's own header is in it."""
    text = recipe(name, tmp_path, 8701, 8702, 8703)

    assert _PLACE.search(text) is None
    assert ("x-token" in text.lower()) == (name != "haproxy")
    if name != "haproxy":
        assert all(f"keywright-{field}" in text.lower() or name == "envoy" for field in IDENTITY)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--gate", "shop; return 200"),
        ("--gate", "shop/../x"),
        ("--gate", ""),
        ("--upstream", "http://app:8000/path"),
        ("--upstream", "app:8000"),
        ("--upstream", "https://app"),
        ("--upstream", "http://app;x:80"),
        ("--upstream", "http://app:port"),
        ("--keywright", "http://user@keywright"),
        ("--listen", "8080"),
        ("--listen", "127.0.0.1:0"),
        ("--listen", "a b:80"),
        ("--header", "X-Token: x"),
    ],
)
def test_nothing_else_gets_into_a_recipe(tmp_path: Path, option: str, value: str) -> None:
    """What is no gate, address or header is refused, so that nothing else can stand in a configuration."""
    ran = Folder(tmp_path)("gateway", "config", "nginx", option, value)

    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"keywright: {option}")


# --------------------------------------------------------------------------------------------------------------- the echo


def test_the_echo_masks_credentials(tmp_path: Path, stage: Stage) -> None:
    """The command answers and prints what arrives, and of a key nothing, in whatever header it came."""
    key = make(stage.kw)
    with Running("gateway", "echo", "--port", "0", cwd=tmp_path) as echo:
        url = echo.until(r"http://\S+")[0]
        said = [
            ("X-API-KEY", token(key)),
            ("X-Other", f"a {token(key)}"),
            ("Cookie", "s=secret"),
            ("X-Kept", "yes"),
        ]
        seen = Through(url, "/a/../b?c", said).send([*said, *bearer(key).items()])
        echo.until("X-Kept: yes")

        assert seen.arrived is not None
        assert (seen.arrived["method"], seen.arrived["target"]) == ("GET", "/a/../b?c")
        assert seen.came("x-kept") == ["yes"]
        assert token(key).encode() not in seen.body
        assert b"secret" not in seen.body
        echo.until("Authorization")
        assert token(key) not in echo.said


def test_a_port_that_is_taken_is_said(tmp_path: Path, stage: Stage) -> None:
    """A second echo on a port ends with a sentence."""
    ran = Folder(tmp_path)("gateway", "echo", "--port", str(stage.upstream))

    assert (ran.code, "cannot be listened on" in ran.err) == (3, True)
