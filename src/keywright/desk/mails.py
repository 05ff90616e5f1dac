"""E-mail about alerts: to whom, and written in the transaction of the alert. The postman sends it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from sqlalchemy import Connection

from keywright import mail
from keywright.desk import Desk, messages
from keywright.keyring import Keyring
from keywright.mail import Mailing
from keywright.model import Alert
from keywright.store import mails, people
from keywright.store.db import Database

#: Whom of an account an alert concerns.
_CONCERNED: Final = ("owner", "admin")


class Mails(Desk):
    """The e-mail of an installation; without ``mailing`` there is none."""

    def __init__(
        self, database: Database, keyring: Keyring, clock: Callable[[], int], mailing: Mailing | None
    ) -> None:
        super().__init__(database, keyring, clock)
        self.mailing = mailing

    def recipients(self, found: Iterable[Alert]) -> Mapping[str, Sequence[str]]:
        """Who is told of each alert, each address once."""
        mailing = self.mailing
        telling = [] if mailing is None else [one for one in found if mailing.tells(one)]
        if mailing is None or not telling:
            return {}
        with self.database.read() as connection:
            names = {one.account for one in telling if one.account} if mailing.members else set()
            concerned = people.concerned(connection, names, _CONCERNED)
        return {
            one.id: sorted({*mailing.to, *concerned.get(one.account or "", ())}, key=str.lower)
            for one in telling
        }

    def write(self, tx: Connection, alert: Alert, recipients: Sequence[str]) -> None:
        """Write the e-mail of a new alert, one to each: nobody sees who else is told."""
        if self.mailing is None:
            return
        about, said = mail.subject(alert), mail.text(alert, self.mailing.base_url)
        for recipient in recipients:
            mails.add(tx, messages.new_id(), recipient, about, said, self.clock())


__all__ = ["Mails"]
