"""E-mail about alerts: to whom it concerns, by a real SMTP conversation, again for days, and never with a secret in it."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from email.policy import default
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope

from conftest import bearer, make
from keywright import CannotStart, Keywright, mail
from keywright.cli.opening import mailing as mailing_of
from keywright.credential import Secret
from keywright.errors import Unavailable
from keywright.mail import Mailing
from keywright.model import Alert
from keywright.postman import SCHEDULE, Postman
from keywright.settings import load
from keywright.testing import Clock
from people import begin
from processes import Folder

pytestmark = pytest.mark.stores

PASSWORD = "correct horse battery"
EVERY = {"keyspace": "every", "environment": "production", "method": "GET", "ip": "192.0.2.7"}


class Inbox:
    """What a receiver took, and what it answers a recipient with, and a whole message."""

    def __init__(self) -> None:
        self.letters: list[tuple[str, list[str], Message]] = []
        self.recipients: dict[str, str] = {}
        self.data = "250 OK"
        self.signed_in: list[bytes] = []

    async def handle_RCPT(  # noqa: N802
        self, _server: Any, _session: Any, envelope: Envelope, address: str, _options: Any
    ) -> str:
        """Take a recipient, or not."""
        answer = self.recipients.get(address, "250 OK")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:  # noqa: N802
        """Take a message, or not."""
        if self.data.startswith("250"):
            content = envelope.content
            assert isinstance(content, bytes)
            assert envelope.mail_from is not None
            self.letters.append(
                (envelope.mail_from, envelope.rcpt_tos, message_from_bytes(content, policy=default))
            )
        return self.data

    def authenticate(
        self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any
    ) -> AuthResult:
        """Let in who knows the password."""
        self.signed_in.append(data.login)
        return AuthResult(success=data.password == PASSWORD.encode(), handled=False)

    def subjects(self) -> list[str]:
        """The subjects, in the order in which they came."""
        return [letter["Subject"] for _, _, letter in self.letters]


@contextmanager
def receiving(inbox: Inbox, **more: Any) -> Iterator[int]:
    """An SMTP server on a free port of this machine, for as long as the block lasts."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(inbox, hostname="127.0.0.1", port=port, **more)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


@pytest.fixture
def inbox() -> Inbox:
    """An empty one."""
    return Inbox()


def setting(port: int = 1, **over: Any) -> Mailing:
    """How e-mail is set up in most tests."""
    usual: dict[str, Any] = {
        "host": "127.0.0.1", "port": port, "security": "none", "user": "", "password": Secret(""), "sender": "keys@example.com",
        "to": ("ops@example.com",), "members": True, "least": "medium", "base_url": "https://keys.example.com",
    }  # fmt: skip
    return Mailing(**(usual | over))


def postman(kw: Keywright, mailing: Mailing, context: ssl.SSLContext | None = None) -> Postman:
    """Set e-mail up in an installation, and who sends it."""
    installation = kw.installation
    installation.mails.mailing = mailing
    return Postman(installation.database, mailing, installation.clock, context=context)


def raised(kw: Keywright, **over: object) -> Alert:
    """An alert about a key that is new."""
    issued = make(kw, **over)
    kw.keys.invalidate(issued.key.id)
    kw.verify(bearer(issued), **EVERY)
    kw.installation.meter.settle()
    kw.installation.lookout.round()
    return next(one for one in kw.installation.alerts.list().items if one.key_id == issued.key.id)


def states(kw: Keywright) -> dict[str, tuple[str, int, str]]:
    """What became of each recipient's newest e-mail: its state, how often it was tried, and what went wrong."""
    with kw.installation.database.read("usage") as connection:
        rows = connection.exec_driver_sql(
            "SELECT recipient, state, attempts, error FROM mails ORDER BY seq"
        ).all()
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


@pytest.mark.requirement("B-18")
def test_whom_it_concerns_is_told_once(kw: Keywright, inbox: Inbox) -> None:
    """Whoever runs the installation, and owners and admins of the account, get one e-mail each, alone; nobody else does."""
    for role in ("owner", "admin", "developer", "auditor"):
        begin(kw, role, email=f"{role}@globex.example")  # type: ignore[arg-type]
    begin(kw, "owner", "initech", email="owner@initech.example")
    disabled = begin(kw, "admin", email="gone@globex.example")[1].person
    kw.installation.people.disable(disabled.id)
    with receiving(inbox) as port:
        sending = postman(kw, setting(port, to=("ops@example.com", "OPS2@example.com")))
        alert = raised(kw, name="CRM sync")
        assert [sending.round(), sending.round()] == [4, 0]

    told = ["admin@globex.example", "ops@example.com", "OPS2@example.com", "owner@globex.example"]
    assert [to for _, to, _ in inbox.letters] == [[one] for one in sorted(told, key=str.lower)]
    for sender, to, letter in inbox.letters:
        assert (sender, letter["From"], letter["To"]) == ("keys@example.com", "keys@example.com", to[0])
        assert letter["Subject"] == "[Keywright] medium: invalidated_key, CRM sync (globex)"
        assert letter["Auto-Submitted"] == "auto-generated"
        body = letter.get_content()  # type: ignore[attr-defined]
        for text in (alert.key_id, "An invalidated key is still presented.", "192.0.2.7", alert.id):
            assert text in body
        assert "https://keys.example.com/console/@globex/alerts" in body
    assert {state for state, _, _ in states(kw).values()} == {"sent"}


def test_no_secret_is_in_it(kw: Keywright, inbox: Inbox) -> None:
    """Neither the e-mail nor the database holds what was presented."""
    issued = make(kw)
    with receiving(inbox) as port:
        sending = postman(kw, setting(port))
        kw.installation.leaks.report([issued.credential.token.reveal()])
        kw.installation.lookout.round()
        sending.round()
    ((_, _, letter),) = inbox.letters
    assert issued.credential.token.reveal()[-38:-6] not in letter.as_string()
    assert f"keywright keys rotate {issued.key.id} --force" in letter.get_content()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("least", "many"), [("low", 1), ("medium", 1), ("high", 0)])
def test_the_setting_says_from_which_severity_on(kw: Keywright, inbox: Inbox, least: str, many: int) -> None:
    """What is less severe than the setting raises an alert and no e-mail."""
    with receiving(inbox) as port:
        sending = postman(kw, setting(port, least=least))
        raised(kw)
        assert sending.round() == many


def test_members_are_told_only_where_the_setting_says(kw: Keywright) -> None:
    """With ``nobody`` the account's people hear nothing; with nobody set at all nothing is written."""
    begin(kw, "owner", email="owner@globex.example")
    postman(kw, setting(members=False))
    raised(kw)
    assert set(states(kw)) == {"ops@example.com"}
    kw.installation.mails.mailing = None
    raised(kw)
    assert len(states(kw)) == 1


def test_an_alert_that_goes_on_is_one_e_mail(kw: Keywright, clock: Clock, inbox: Inbox) -> None:
    """What counts an alert on sends nothing more."""
    issued = make(kw)
    kw.keys.invalidate(issued.key.id)
    with receiving(inbox) as port:
        sending = postman(kw, setting(port))
        for _ in range(3):
            kw.verify(bearer(issued), **EVERY)
            kw.installation.meter.settle()
            kw.installation.lookout.round()
            sending.round()
    assert len(inbox.letters) == 1


# ------------------------------------------------------------------------------------------------------------- trouble


def test_a_server_that_is_down_is_tried_for_days(kw: Keywright, clock: Clock, inbox: Inbox) -> None:
    """While nothing answers the e-mail waits and the server rests; ten attempts are made, and it is said what went wrong."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    sending = postman(kw, setting(port))
    raised(kw)
    assert [sending.round(), sending.round()] == [1, 0]
    assert states(kw)["ops@example.com"] == ("waiting", 1, "connection refused")
    for seconds in SCHEDULE[:-1]:
        clock.advance(seconds=seconds)
        assert sending.round() == 1
    clock.advance(seconds=SCHEDULE[-1])
    with receiving(inbox, enable_SMTPUTF8=False) as other:
        assert postman(kw, setting(other)).round() == 1
    assert states(kw)["ops@example.com"] == ("sent", 10, "")

    raised(kw)
    sending = postman(kw, setting(port))
    for seconds in (*SCHEDULE, 86_400):
        assert sending.round() == 1
        clock.advance(seconds=seconds)
    assert sending.round() == 0
    assert states(kw)["ops@example.com"][:2] == ("failed", 10)


def test_what_the_server_says_of_a_recipient_is_heeded(kw: Keywright, clock: Clock, inbox: Inbox) -> None:
    """An address that is refused for good is given up, one for now is tried again, and others are told meanwhile."""
    inbox.recipients = {"a@example.com": "550 5.1.1 no such user\x1b[31m", "b@example.com": "451 4.2.0 later"}
    with receiving(inbox) as port:
        sending = postman(kw, setting(port, to=("a@example.com", "b@example.com", "c@example.com")))
        raised(kw)
        assert sending.round() == 3
        assert [to for _, to, _ in inbox.letters] == [["c@example.com"]]
        assert states(kw)["a@example.com"] == ("failed", 1, "550 5.1.1 no such user [31m")
        assert states(kw)["b@example.com"][:2] == ("waiting", 1)
        inbox.recipients.clear()
        clock.advance(minutes=1)
        assert sending.round() == 1
    assert states(kw)["b@example.com"][:2] == ("sent", 2)


@pytest.mark.parametrize(("answer", "state"), [("554 no", "failed"), ("452 full", "waiting")])
def test_what_it_says_of_the_message_is_heeded(kw: Keywright, inbox: Inbox, answer: str, state: str) -> None:
    """A message that is refused for good is given up, one for now is tried again."""
    inbox.data = answer
    with receiving(inbox) as port:
        sending = postman(kw, setting(port))
        raised(kw)
        sending.round()
    assert states(kw)["ops@example.com"] == (state, 1, answer)


def test_a_kill_after_it_was_taken_sends_the_same_again(
    kw: Keywright, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An e-mail that was taken and not noted goes out again under its own ``Message-ID``."""
    with receiving(inbox) as port:
        sending = postman(kw, setting(port))
        raised(kw)
        with monkeypatch.context() as patched:
            patched.setattr(sending, "_note", _killed)
            with pytest.raises(KeyboardInterrupt):
                sending.round()
        assert postman(kw, setting(port)).round() == 1
    first, second = (letter["Message-ID"] for _, _, letter in inbox.letters)
    assert first == second
    assert first.endswith("@example.com>")


def _killed(*_args: object, **_more: object) -> None:
    raise KeyboardInterrupt


def test_a_server_that_hangs_holds_nobody_up(kw: Keywright) -> None:
    """While a server that took the connection says nothing, alerts are raised, and closing does not wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sending = postman(kw, setting(listening.getsockname()[1]))
        raised(kw)
        sending.start()
        connection, _ = listening.accept()
        connection.sendall(b"220 here\r\n")
        while b"\n" not in connection.recv(100):  # it says who it is, and waits
            pass
        assert raised(kw).rule == "invalidated_key"
        closing = threading.Thread(target=sending.close)
        closing.start()
        closing.join(10)
        assert not closing.is_alive()
        connection.close()


# ------------------------------------------------------------------------------------------------------------- secured


class Tls:
    """A certificate for this machine, and who trusts it."""

    def __init__(self) -> None:
        authority = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self.server)
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)


@pytest.fixture(scope="module")
def tls() -> Tls:
    """Made once."""
    return Tls()


def _starttls(inbox: Inbox, tls: Tls) -> Any:
    return receiving(
        inbox,
        tls_context=tls.server,
        require_starttls=True,
        authenticator=inbox.authenticate,
        auth_required=True,
    )


def _from_the_start(inbox: Inbox, tls: Tls) -> Any:
    return receiving(
        inbox,
        ssl_context=tls.server,
        authenticator=inbox.authenticate,
        auth_require_tls=False,
    )


@pytest.mark.parametrize(("security", "how"), [("starttls", _starttls), ("tls", _from_the_start)])
def test_it_signs_in_over_tls(
    kw: Keywright, inbox: Inbox, tls: Tls, security: str, how: Callable[[Inbox, Tls], Any]
) -> None:
    """With STARTTLS, or TLS from the start, it signs in and sends; a wrong password sends nothing, and is not shown."""
    with how(inbox, tls) as port:
        more = {"security": security, "user": "keywright"}
        wrong = postman(kw, setting(port, password=Secret("no such horse"), **more), tls.client)
        raised(kw)
        wrong.round()
        assert inbox.letters == []
        assert "horse" not in json.dumps(states(kw))
        right = setting(port, password=Secret(PASSWORD), **more)
        kw.installation.clock.advance(minutes=1)  # type: ignore[attr-defined]
        assert postman(kw, right, tls.client).round() == 1
    assert inbox.subjects() != []
    assert set(inbox.signed_in) == {b"keywright"}
    assert PASSWORD not in repr(right)


def test_nothing_goes_out_unsecured(kw: Keywright, clock: Clock, inbox: Inbox, tls: Tls) -> None:
    """A server that offers no STARTTLS, or whose certificate nobody vouches for, is sent nothing and no password."""
    more = {"security": "starttls", "user": "keywright", "password": Secret(PASSWORD)}
    with receiving(inbox, authenticator=inbox.authenticate, auth_require_tls=False) as port:
        sending = postman(kw, setting(port, **more), tls.client)
        raised(kw)
        sending.round()
    clock.advance(minutes=1)
    with _starttls(inbox, tls) as port:
        postman(kw, setting(port, **more)).round()
    assert (inbox.letters, inbox.signed_in) == ([], [])
    assert states(kw)["ops@example.com"][:2] == ("waiting", 2)


# -------------------------------------------------------------------------------------------------------- what it says


def alert(**over: Any) -> Alert:
    """An alert, with what others wrote in it."""
    usual = Alert(
        seq=1, id="al_1", rule="guessed", about="k", severity="high", act="look", state="open", account="globex",
        keyspace="every", environment="production", key_id="k", first_at=0, last_at=0, raised_at=0, count=1, evidence={},
    )  # fmt: skip
    return msgspec.structs.replace(usual, **over)


@pytest.mark.parametrize(
    "name",
    [
        "a\r\nBcc: x@evil.example",
        "a\nb",
        "a\r",
        "\u2028Bcc: x",
        "\x00\x1b[1m",
        "\u202eevil",
        "日本 " * 90,
        "",
    ],
)
def test_no_name_becomes_a_header(name: str) -> None:
    """Whatever stands in a name, the e-mail has its own headers, a subject of one line, and text without controls."""
    one = alert(evidence={"key_name": name, "urls": [name], "reasons": {name: 1}}, account=name)
    said = mail.text(one, "https://keys.example.com")
    sent = mail.letter("keys@example.com", "ops@example.com", mail.subject(one), said, "msg_1", 0).as_bytes()
    letter = message_from_bytes(sent, policy=default)

    assert sorted(letter.keys()) == sorted(
        ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"]
    )  # fmt: skip
    assert letter["Subject"].strip().startswith("[Keywright] high: guessed, ")
    assert len(letter["Subject"]) <= mail.LONGEST_SUBJECT
    assert all(
        character.isprintable() or character == "\n"
        for character in letter.get_content().replace("\r\n", "\n")
    )
    assert letter.is_multipart() is False
    assert max(map(len, sent.split(b"\r\n"))) <= 998


@pytest.mark.parametrize(
    "address", ["a@b.example\r\nBcc: x@y.example", "a@b.example, c@d.example", "", "@", "a@b\n.example"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    """What is not one address is a ``ValueError``, and nothing is put together."""
    with pytest.raises(ValueError, match=r"."):
        mail.letter("keys@example.com", address, "s", "t", "msg_1", 0)


# --------------------------------------------------------------------------------------------------------- setting it up


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"SMTP_HOST": "mx.example.com"}, "mail_from"),
        ({"SMTP_HOST": "mx.example.com", "MAIL_FROM": "nobody"}, "mail_from"),
        ({"SMTP_HOST": "mx.example.com", "MAIL_FROM": "a@b.example,c@d.example"}, "mail_from"),
        ({"MAIL_TO": "a@b.example,\nBcc: x"}, "mail_to"),
        ({"SMTP_HOST": "mx.example.com", "MAIL_FROM": "a@b.example", "SMTP_USER": "u"}, "go together"),
        ({"SMTP_PORT": "0"}, "smtp_port"),
        ({"SMTP_SECURITY": "maybe"}, "smtp_security"),
        (
            {
                "SMTP_HOST": "mx.example.com",
                "MAIL_FROM": "a@b.example",
                "SMTP_SECURITY": "none",
                "SMTP_USER": "u",
            }
            | {"SMTP_PASSWORD": "p"},
            "as it is",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, str], wrong: str) -> None:
    """Settings by which no e-mail could go out, or a password in clear, are refused with a line that says which."""
    with pytest.raises(CannotStart, match=wrong):
        mailing_of(load({}, {f"KEYWRIGHT_{name}": value for name, value in given.items()}))


def test_it_is_off_unless_it_is_set_up() -> None:
    """Without ``smtp_host`` there is no e-mail; with it, a list of addresses stands in TOML or with commas between."""
    assert mailing_of(load({}, {})) is None
    around = {"KEYWRIGHT_SMTP_HOST": "mx.example.com", "KEYWRIGHT_MAIL_FROM": "a@b.example"}
    found = mailing_of(load({}, around | {"KEYWRIGHT_MAIL_TO": "c@d.example, e@f.example"}))
    assert found is not None
    assert (found.port, found.security, found.to, found.members) == (
        587,
        "starttls",
        ("c@d.example", "e@f.example"),
        True,
    )


@pytest.mark.sqlite_only("the command is asked, not the store")
def test_the_command_tries_it_out(tmp_path: Path, inbox: Inbox) -> None:
    """``keywright alerts test-mail`` sends one now, and says what came of it; the password is shown nowhere."""
    folder = Folder(tmp_path)
    bare = folder("alerts", "test-mail", "ana@example.com")
    with receiving(inbox) as port:
        around = {
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(port),
            "SMTP_SECURITY": "none",
            "MAIL_FROM": "keys@example.com",
        }
        environment = {f"KEYWRIGHT_{name}": value for name, value in around.items()}
        sent = folder("alerts", "test-mail", "ana@example.com", **environment)
    down = folder("alerts", "test-mail", "ana@example.com", **environment)
    shown = folder(
        "config", "show", **(environment | {"KEYWRIGHT_SMTP_USER": "u", "KEYWRIGHT_SMTP_PASSWORD": PASSWORD})
    )

    assert (bare.code, "KEYWRIGHT_SMTP_HOST" in bare.err) == (3, True)
    assert (sent.code, sent.out) == (0, "127.0.0.1 has taken an e-mail to ana@example.com\n")
    assert inbox.subjects() == ["[Keywright] a test"]
    assert down.code != 0
    assert "connection refused" in down.err
    assert PASSWORD not in shown.out


@pytest.mark.sqlite_only("one store suffices for the message")
def test_a_test_says_what_the_server_said(kw: Keywright, inbox: Inbox) -> None:
    """A server that refuses the address is quoted, on one line."""
    inbox.recipients = {"ana@example.com": "550 no such user"}
    with receiving(inbox) as port, pytest.raises(Unavailable, match="550 no such user"):
        postman(kw, setting(port)).test(setting(port), "ana@example.com")
