"""The postman: sends e-mail by SMTP, and goes on for days where the server does not take it.

An e-mail is written with the alert that it tells of, and noted as sent when the server has taken it: it goes out once or,
where a process is killed in between, twice under the same ``Message-ID``. One process at a time sends, under a lease. Where
TLS is asked for, nothing goes out without it.
"""

import logging
import secrets
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from keywright import mail
from keywright.errors import Unavailable
from keywright.mail import Mailing
from keywright.shift import Shift
from keywright.store import mails
from keywright.store.db import Database
from keywright.store.mails import Mail
from keywright.times import DAY, SECOND

#: How long after each attempt the next one follows, in seconds: ten attempts within some three days.
SCHEDULE: Final = (60, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
#: A server that fails is left alone for so long at most, in seconds.
LONGEST_REST: Final = 300
PATIENCE: Final = 15.0  # seconds, for each step with the server
EVERY: Final = 0.5  # seconds between two rounds
LEASE: Final = 150  # seconds: longer than one e-mail takes at the slowest
AT_ONCE: Final = 20
LONGEST_ROUND: Final = 30.0  # seconds, before the lease is renewed
KEPT: Final = 30 * DAY * SECOND
TRIM_EVERY: Final = 3600 * SECOND

log = logging.getLogger("keywright")


class Postman:
    """Sends. ``round`` sends what is due once; ``start`` makes a thread of it that competes for the lease."""

    def __init__(
        self,
        database: Database,
        mailing: Mailing | None,
        clock: Callable[[], int],
        *,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._database = database
        self._mailing = mailing
        self._clock = clock
        self._context = context
        self._smtp: smtplib.SMTP | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._begin()

    def _begin(self) -> None:
        self._failures = self._rests_until = self._trimmed_at = 0

    def round(self) -> int:
        """Send what is due, until the server fails; how many attempts were made. Raises ``Unavailable``."""
        now = self._clock()
        if self._mailing is None or now < self._rests_until:
            return 0
        if now - self._trimmed_at >= TRIM_EVERY:
            self._trimmed_at = now
            with self._database.write("usage") as tx:
                mails.trim(tx, now - KEPT)
        with self._database.read("usage") as connection:
            due = mails.due(connection, now, AT_ONCE)
        return self._send_all(self._mailing, due)

    def test(self, mailing: Mailing, to: str) -> None:
        """Send one e-mail now, that says that e-mail works. Raises ``Unavailable`` with what the server said."""
        said = "Keywright can send e-mail from here.\n"
        one = Mail(0, f"test_{secrets.token_hex(8)}", to, "[Keywright] a test", said, self._clock(), 0)
        try:
            self._send(mailing, one)
        except (smtplib.SMTPException, OSError, ValueError) as trouble:
            where = f"{mailing.host} port {mailing.port}"
            raise Unavailable(f"e-mail cannot be sent by {where}: {_said(trouble)}") from None
        finally:
            self._hang_up()

    def start(self) -> None:
        """Send in a thread until ``close``; where no e-mail is set up, do nothing."""
        if self._mailing is None:
            return
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keywright-postman", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; a server that is being waited for is hung up on."""
        self._stop.set()
        if self._thread is not None and self._thread.is_alive():
            self._hang_up()
            self._thread.join()
        self._thread = None

    def after_fork(self) -> None:
        """Forget the parent's thread."""
        self._thread, self._stop, self._smtp = None, threading.Event(), None
        self._begin()

    # ------------------------------------------------------------------------------------------------------- inside

    def _send_all(self, mailing: Mailing, due: Sequence[Mail]) -> int:
        began = time.monotonic()
        try:
            for place, one in enumerate(due):
                if self._stop.is_set() or time.monotonic() - began > LONGEST_ROUND:
                    return place
                if not self._attempt(mailing, one):
                    return place + 1
            return len(due)
        finally:
            self._hang_up(polite=True)

    def _attempt(self, mailing: Mailing, one: Mail) -> bool:
        """Try to send one; whether the server may be asked for the next."""
        try:
            self._send(mailing, one)
        except smtplib.SMTPRecipientsRefused as refused:
            code, _ = refused.recipients[one.recipient]
            self._note(one, _said(refused), over=code >= 500)
            return True
        except smtplib.SMTPDataError as refused:
            self._note(one, _said(refused), over=refused.smtp_code >= 500)
            return True
        except (
            smtplib.SMTPException,
            OSError,
        ) as trouble:  # a certificate that is not good is a ValueError too
            self._fail(mailing, one, _said(trouble))
            return False
        except ValueError as wrong:  # an address that is none
            self._note(one, _said(wrong), over=True)
            return True
        self._failures = 0
        self._note(one, "", over=True)
        return True

    def _send(self, mailing: Mailing, one: Mail) -> None:
        letter = mail.letter(
            mailing.sender, one.recipient, one.subject, one.body, one.message_id, self._clock()
        )
        if self._smtp is None:
            self._smtp = self._connected(mailing)
        self._smtp.send_message(letter, mailing.sender, [one.recipient])

    def _connected(self, mailing: Mailing) -> smtplib.SMTP:
        context = self._context or ssl.create_default_context()
        own = mailing.sender.rpartition("@")[2]
        if mailing.security == "tls":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                mailing.host, mailing.port, own, timeout=PATIENCE, context=context
            )
        else:
            smtp = smtplib.SMTP(mailing.host, mailing.port, own, timeout=PATIENCE)
        try:
            if mailing.security == "starttls":
                smtp.starttls(context=context)
            if mailing.user:
                smtp.login(mailing.user, mailing.password.reveal())
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _fail(self, mailing: Mailing, one: Mail, why: str) -> None:
        """The server fails: leave it alone for a while, whatever else is due."""
        self._hang_up()
        rest = min(1 << min(self._failures, 10), LONGEST_REST)
        self._failures += 1
        self._rests_until = self._clock() + rest * SECOND
        self._note(one, why, over=False)
        log.warning("e-mail cannot be sent by %s port %s: %s", mailing.host, mailing.port, why)

    def _note(self, one: Mail, error: str, *, over: bool) -> None:
        now, attempts = self._clock(), one.attempts + 1
        waits = not over and attempts <= len(SCHEDULE)
        state = "waiting" if waits else "failed" if error else "sent"
        next_at = now + SCHEDULE[attempts - 1] * SECOND if waits else None
        with self._database.write("usage") as tx:
            mails.note(
                tx, one.seq, state=state, attempts=attempts, next_at=next_at, last_at=now, error=error[:200]
            )

    def _hang_up(self, *, polite: bool = False) -> None:
        smtp, self._smtp = self._smtp, None
        if smtp is None:
            return
        with suppress(smtplib.SMTPException, OSError):
            if polite:
                smtp.quit()
            elif smtp.sock is not None:
                smtp.sock.shutdown(socket.SHUT_RDWR)
        smtp.close()

    def _run(self) -> None:
        shift = Shift(self._database, "postman", self._clock, lease=LEASE)
        shift.work(lambda: shift.holds() and self.round(), self._stop, EVERY)
        shift.leave()


def _said(trouble: BaseException) -> str:
    """What went wrong, in words that may be shown: what a server said is its own text, on one line."""
    if isinstance(trouble, smtplib.SMTPResponseException):
        return f"{trouble.smtp_code} {_printable(trouble.smtp_error)}"[:200]
    if isinstance(trouble, smtplib.SMTPRecipientsRefused):
        ((code, answer),) = trouble.recipients.values()
        return f"{code} {_printable(answer)}"[:200]
    if isinstance(trouble, OSError) and trouble.strerror:
        return trouble.strerror.lower()[:200]
    return mail.one_line(str(trouble))[:200] or type(trouble).__name__


def _printable(answer: bytes | str) -> str:
    return mail.one_line(answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer)


__all__ = ["Postman"]
