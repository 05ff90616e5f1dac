"""Where a webhook may go: what is refused as it is written, and what is refused for where it leads."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from keywright import Invalid, addresses
from keywright.post import MOST_READ, Closed, Outcome, Post

#: Refused as they are written.
WRITTEN = (
    "http://example.com/",
    "ftp://example.com/",
    "//example.com/",
    "example.com",
    "https:example.com",
    "https:///",
    "https://user@example.com/",
    "https://user:secret@example.com/",
    "https://example.com@127.0.0.1/",
    "https://127.0.0.1\\@example.com/",
    "https://example.com\\@127.0.0.1/",
    "https://example.com#@127.0.0.1/",
    "https://example.com/#fragment",
    "https://example.com/a b",
    "https://example.com/\r\nX: y",
    "https://example.com/\0",
    "https://exam\u200bple.com/",
    "https://ⓔxample.com/",
    "https://127。0。0。1/",
    "https://example.com:0/",
    "https://example.com:22/",
    "https://example.com:25/",
    "https://example.com:6379/",
    "https://example.com:65536/",
    "https://example.com:443:443/",
    "https://example.com./",
    "https://localhost/",
    "https://localhost./",
    "https://LOCALHOST/",
    "https://x.localhost/",
    "https://metadata.google.internal/computeMetadata/v1/",
    "https://printer.local/",
    "https://intranet/",
    "https://-x.example.com/",
    "https://a..example.com/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://127.0.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://017700000001/",
    "https://127.0.0.01/",
    "https://0/",
    "https://0.0.0.0/",
    "https://1.2.3.0x4/",
    "https://169.254.169.254/latest/meta-data/",
    "https://169.254.169.254./",
    "https://168.63.129.16/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://100.100.100.200/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2001:0:7f00:1::]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[ff02::1]/",
    "https://::1/",
    "https://[127.0.0.1]/",
    "https://" + "a" * 2000 + ".com/",
)
#: What a name may turn out to mean, and must not be connected to.
RESOLVED = (
    ["127.0.0.1"],
    ["10.1.2.3"],
    ["169.254.169.254"],
    ["100.64.1.1"],
    ["0.0.0.0"],
    ["::1"],
    ["fd00::1"],
    ["::ffff:10.0.0.1"],
    ["64:ff9b::a9fe:a9fe"],
    ["2002:a9fe:a9fe::"],
    ["fe80::1%eth0"],
    ["ff02::1"],
    ["93.184.216.34", "127.0.0.1"],
    ["2606:2800:21f::1", "::1"],
    ["93.184.216.34"] * 17,
    ["nonsense"],
    [],
)


@pytest.mark.security("T-38")
@pytest.mark.parametrize("url", WRITTEN)
def test_an_address_that_could_lead_inside_is_refused_as_it_is_written(url: str) -> None:
    """Other schemes, users, ports, spellings of numbers and names of the inside are refused before anything is looked up."""
    with pytest.raises(Invalid) as refusal:
        addresses.read(url)

    assert refusal.value.path == "url"


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("https://example.com", "example.com", "/"),
        ("https://Hooks.Example.com:8443/a?b=c", "hooks.example.com:8443", "/a?b=c"),
        ("https://example.com?x", "example.com", "/?x"),
        ("https://93.184.216.34/", "93.184.216.34", "/"),
        ("https://[2606:2800:21f::1]:8443/", "[2606:2800:21f::1]:8443", "/"),
        ("https://xn--bcher-kva.example.com/", "xn--bcher-kva.example.com", "/"),
    ],
)
def test_a_public_address_is_read(url: str, authority: str, path: str) -> None:
    """Names and numbers of the outside are taken, on the ports of the list."""
    target = addresses.read(url)

    assert (target.authority, target.path) == (authority, path)


def test_loopback_and_http_are_for_who_says_so() -> None:
    """With its own networks named, an installation may use http to loopback, any port there, and nothing else more."""
    loopback = [ip_network("127.0.0.0/8")]

    assert addresses.read("http://127.0.0.1:9000/", loopback).port == 9000
    assert addresses.read("http://localhost:9000/", loopback).number is None
    for url in ("http://10.0.0.1/", "http://example.com/", "https://10.0.0.1/", "https://169.254.169.254/"):
        with pytest.raises(Invalid):
            addresses.read(url, loopback)
    named = addresses.read("http://localhost:9000/", loopback)
    assert addresses.may_be_reached(named, ip_address("127.0.0.1"), loopback) is None
    assert addresses.may_be_reached(named, ip_address("93.184.216.34"), loopback) is not None


@pytest.mark.parametrize(
    "text", ["169.254.169.254", "0.0.0.0", "224.0.0.1", "::", "fe80::1", "fd00:ec2::254"]
)
def test_no_setting_opens_what_is_never_a_receiver(text: str) -> None:
    """Clouds' metadata, link-local, multicast and the unspecified stay closed to whoever allows the whole internet."""
    everything = [ip_network("0.0.0.0/0"), ip_network("::/0")]

    assert addresses.inside(ip_address(text), everything) is not None


@given(st.text(max_size=60).map(lambda rest: f"https://{rest}"))
def test_no_text_is_read_as_something_inside(url: str) -> None:
    """Whatever is written is refused with a reason, or has a host that is a public number or a name with a dot in it."""
    try:
        target = addresses.read(url)
    except Invalid:
        return
    assert target.scheme == "https"
    assert target.port in addresses.PORTS
    if target.number is None:
        assert "." in target.host
    else:
        assert addresses.inside(ip_address(target.number)) is None


@given(st.ip_addresses())
def test_what_is_reached_is_public(number: addresses.Number) -> None:
    """No number that Python calls private, link-local, loopback, multicast or reserved is reached."""
    if addresses.inside(number) is None:
        assert number.is_global
        assert not any((number.is_private, number.is_loopback, number.is_link_local, number.is_multicast))


# ------------------------------------------------------------------------------------------------------- the connector


@pytest.mark.security("T-38")
@pytest.mark.parametrize("numbers", RESOLVED, ids=" ".join)
def test_a_name_that_leads_inside_is_not_connected_to(numbers: list[str]) -> None:
    """A name with a single number inside is refused, whatever its others are, and nothing is dialled."""
    post = Post(resolve=lambda _host, _port: numbers, dial=_never)

    with pytest.raises(Closed):
        post.numbers(addresses.read("https://hooks.example.com/"))


@pytest.mark.security("T-38")
def test_a_name_that_changes_its_meaning_gains_nothing(tls: "Tls") -> None:
    """A name is resolved once: the connection goes to the checked number, with the name kept for TLS and for ``Host``."""
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])
    dialled: list[str] = []

    def dial(number: str, _port: int, _patience: float) -> socket.socket:
        dialled.append(number)
        return socket.create_connection(("127.0.0.1", port), 10)

    with receiver(b"HTTP/1.1 204 No Content\r\n\r\n", tls.server) as (port, heard):
        post = Post(resolve=lambda _host, _port: next(answers), dial=dial, context=tls.client)
        target = addresses.read("https://hooks.example.com/in")
        outcome = post.send(target, post.numbers(target), {"Content-Length": "2"}, b"{}")

    assert outcome.taken
    assert dialled == ["93.184.216.34"]
    assert heard[0].startswith(b"POST /in HTTP/1.1\r\nHost: hooks.example.com\r\n")
    assert tls.names[-1:] == ["hooks.example.com"]


def test_a_certificate_of_another_name_is_refused(tls: "Tls") -> None:
    """A host whose certificate is for another name hears nothing of a webhook."""
    with receiver(b"HTTP/1.1 204 No Content\r\n\r\n", tls.server) as (port, heard):
        post = Post(
            resolve=lambda _host, _port: ["93.184.216.34"],
            dial=lambda _number, _port, patience: socket.create_connection(("127.0.0.1", port), patience),
            context=tls.client,
        )
        target = addresses.read("https://other.example.com/")
        outcome = post.send(target, post.numbers(target), {}, b"secret")

    assert (outcome.status, outcome.error) == (None, "the host's certificate is not good for its name")
    assert b"secret" not in b"".join(heard)


LOOPBACK = [ip_network("127.0.0.0/8")]


def sent(answer: bytes, patience: float = 20.0, pause: float = 0) -> tuple[Outcome, list[bytes]]:
    """What comes of sending to a receiver that answers so, with a pause after each byte where one is named."""
    with receiver(answer, pause=pause) as (port, heard):
        post = Post(LOOPBACK, patience=patience)
        target = addresses.read(f"http://127.0.0.1:{port}/x", LOOPBACK)
        return post.send(target, post.numbers(target), {"Content-Length": "2"}, b"{}"), heard


@pytest.mark.security("T-38", "R-31")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status: int) -> None:
    """A redirect, to the metadata of a cloud for example, is an answer like any other that is no success."""
    answer = (
        b"HTTP/1.1 %d Go\r\nLocation: http://169.254.169.254/latest/\r\nContent-Length: 0\r\n\r\n" % status
    )

    outcome, heard = sent(answer)

    assert (outcome.status, outcome.taken, len(heard)) == (status, False, 1)


@pytest.mark.security("T-38", "R-31")
def test_a_huge_answer_is_not_read() -> None:
    """Of an answer that never ends, head or body, so many bytes are read and no more."""
    endless_body = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * (4 * MOST_READ)
    endless_head = b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * MOST_READ

    assert MOST_READ == 65_536
    assert len(sent(endless_body)[0].body) < 65_536
    assert sent(endless_head)[0].status is None


@pytest.mark.security("R-31")
def test_a_slow_answer_has_one_deadline() -> None:
    """A receiver that says nothing, or begins and never ends, is given up after the whole time, not after each byte."""
    assert sent(b"", patience=0.2)[0].error == "no answer within 0.2 seconds"
    assert sent(b"HTTP/1.1 200", patience=0.2)[0].status is None


@pytest.mark.security("R-31")
def test_an_answer_that_drips_has_the_same_deadline() -> None:
    """A receiver that sends a byte at a time gains nothing by it: the deadline is for all of them together."""
    outcome, _ = sent(b"HTTP/1.1 200 " + b"O" * 200, patience=0.3, pause=0.02)

    assert outcome.error == "no answer within 0.3 seconds"


@pytest.mark.parametrize(
    "answer", [b"hello\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\0" * 100, b"HTTP/9.9 200 OK\r\n\r\n"]
)
def test_what_is_not_http_is_no_success(answer: bytes) -> None:
    """Something else that listens there, and is sent a request, has not taken it."""
    assert not sent(answer + b"\r\n" * 10, patience=2)[0].taken


@pytest.mark.security("T-38")
def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that name a proxy change nothing."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert sent(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")[0].taken


def test_retry_after_is_read() -> None:
    """Seconds are; a date, or nonsense, is as if it were not there."""
    for text, seconds in (
        (b"120", 120),
        (b"Fri, 31 Dec 2027 23:59:59 GMT", None),
        (b"-5", None),
        (b"9" * 20, None),
    ):
        outcome, _ = sent(b"HTTP/1.1 429 Slow\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n" % text)
        assert (outcome.status, outcome.retry_after) == (429, seconds)


# ------------------------------------------------------------------------------------------------------------- helpers


def _never(_number: str, _port: int, _patience: float) -> socket.socket:
    raise AssertionError("dialled")


class Tls:
    """A certificate for ``hooks.example.com``, who trusts it, and the names that were asked for."""

    def __init__(self) -> None:
        authority = trustme.CA()
        self.names: list[str | None] = []
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("hooks.example.com").configure_cert(self.server)
        self.server.sni_callback = lambda _socket, name, _context: self.names.append(name)
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)


@pytest.fixture(scope="module")
def tls() -> Tls:
    """Made once: drawing keys takes a while."""
    return Tls()


@contextmanager
def receiver(
    answer: bytes, context: ssl.SSLContext | None = None, pause: float = 0
) -> Iterator[tuple[int, list[bytes]]]:
    """A server on loopback that answers each request with the same bytes and leaves the connection to the other side."""
    heard: list[bytes] = []
    done = threading.Event()

    def answer_one(connection: socket.socket) -> None:
        try:
            spoken = connection if context is None else context.wrap_socket(connection, server_side=True)
            with spoken:
                heard.append(spoken.recv(65_536))
                for part in [answer[n : n + 1] for n in range(len(answer))] if pause else [answer]:
                    spoken.sendall(part)
                    done.wait(pause)
                if not pause:
                    done.wait(10)
        except OSError:  # the other side had enough
            connection.close()

    def run() -> None:
        while not done.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            worker = threading.Thread(target=answer_one, args=(connection,))
            workers.append(worker)
            worker.start()

    workers: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepting = threading.Thread(target=run)
        accepting.start()
        yield listening.getsockname()[1], heard
        done.set()
        listening.shutdown(socket.SHUT_RDWR)
    for thread in (accepting, *workers):
        thread.join(10)
