"""E-mail about alerts: what one says, and how it is put together. Pure.

Subject and text are plain, and hold what every surface says of an alert: never a secret. Names that people gave are
reduced to what can be printed on one line, so that none of them becomes a header.
"""

import re
from collections.abc import Mapping
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec

from keywright import events
from keywright.credential import Secret
from keywright.model import Alert
from keywright.times import to_datetime

LONGEST_SUBJECT: Final = 200
SEVERITIES: Final = ("low", "medium", "high")
_MAILBOX: Final = re.compile(r"\A[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\Z")


class Mailing(msgspec.Struct, frozen=True):
    """By which server e-mail goes out, from whom, and to whom. ``least`` is the severity from which on people are told."""

    host: str
    port: int
    security: Literal["starttls", "tls", "none"]
    user: str
    password: Secret
    sender: str
    to: tuple[str, ...]
    members: bool  # owners and admins of the account that an alert is about, too
    least: str
    base_url: str

    def tells(self, alert: Alert) -> bool:
        """Whether an alert is worth an e-mail."""
        return SEVERITIES.index(alert.severity) >= SEVERITIES.index(self.least)


def subject(alert: Alert) -> str:
    """The subject: how bad, what, of which key or source."""
    about = alert.evidence.get("key_name") or alert.about
    of = f" ({alert.account})" if alert.account else ""
    return one_line(f"[Keywright] {alert.severity}: {alert.rule}, {about}{of}")[:LONGEST_SUBJECT]


def text(alert: Alert, base_url: str) -> str:
    """The text: what it means, what shows it, what to do, and where."""
    said = events.alert(alert)
    lines = [said["says"], ""]
    for name in (
        "key",
        "key_name",
        "about",
        "account",
        "keyspace",
        "environment",
        "count",
        "first_at",
        "last_at",
    ):
        if said[name] not in (None, "") and not (name == "about" and said["about"] == said["key"]):
            lines.append(f"{name.replace('_', ' '):15}{one_line(str(said[name]))}")
    lines += [f"{name.replace('_', ' '):15}{_shown(value)}" for name, value in _worth(said["evidence"])]
    place = f"@{quote(alert.account)}" if alert.account else "operator"
    return "\n".join(
        [
            *lines,
            "",
            f"To do: {said['advice']}",
            "",
            f"{base_url}/console/{place}/alerts",
            f"keywright alerts get {alert.id}",
            "",
        ]
    )


def letter(sender: str, to: str, about: str, said: str, message_id: str, at: int) -> EmailMessage:
    """The e-mail, ready to be sent. Raises ``ValueError`` for an address that is none."""
    for address in (sender, to):
        if not _MAILBOX.match(address):
            raise ValueError(f"{address[:80]!r} is no address of mail")
    found = EmailMessage(policy=SMTP)
    found["From"] = Address(addr_spec=sender)
    found["To"] = Address(addr_spec=to)
    found["Subject"] = one_line(about)[:LONGEST_SUBJECT]
    found["Date"] = format_datetime(to_datetime(at))
    found["Message-ID"] = f"<{message_id}@{sender.rpartition('@')[2]}>"
    found["Auto-Submitted"] = "auto-generated"
    found.set_content(said, cte="quoted-printable")
    return found


def one_line(said: str) -> str:
    """A text that somebody else wrote, on one line and without anything that cannot be seen."""
    return " ".join("".join(one if one.isprintable() else " " for one in said).split())


def _worth(evidence: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in evidence.items() if value not in ([], {}, None, "")]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{name} {times}" for name, times in value.items()]
    return one_line(", ".join(map(str, value)) if isinstance(value, list) else str(value))


__all__ = ["Mailing", "letter", "one_line", "subject", "text"]
