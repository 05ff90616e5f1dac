"""The tables, for SQLite and PostgreSQL alike.

House law: instants are microseconds in UTC; ids and JSON are text; digests are bytes; there are no booleans where an
instant or nothing says more. On SQLite the tables lie in three files, so that counting does not move the data version
that announces changes of keys: ``keys`` holds what must never be lost, ``spend`` what was taken from limits, ``usage``
what was counted. On PostgreSQL they share a database.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)
from sqlalchemy import Text as _Text

#: Text that is ordered and compared by its bytes, whatever the locale of a PostgreSQL database: as on SQLite.
Text: Final = _Text().with_variant(_Text(collation="C"), "postgresql")

#: The newest migration of each file. A test holds this to what the migrations say.
HEADS: Final = {"keys": "0004", "spend": "0001", "usage": "0001"}
FILES: Final = tuple(HEADS)

keys_file = MetaData()
spend_file = MetaData()
usage_file = MetaData()
METADATA: Final = {"keys": keys_file, "spend": spend_file, "usage": usage_file}

canaries = Table(
    "canaries",
    keys_file,
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("mac", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

keyspaces = Table(
    "keyspaces",
    keys_file,
    Column("name", Text, primary_key=True),
    Column("prefix", Text, nullable=False, unique=True),
    Column("definition", Text, nullable=False),  # model.Keyspace as JSON
    Column("source", Text, nullable=False),  # the TOML as applied
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

accounts = Table(
    "accounts",
    keys_file,
    Column("id", Text, primary_key=True),
    Column("username", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("limits", Text, nullable=False),  # JSON
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

keys = Table(
    "keys",
    keys_file,
    Column("id", Text, primary_key=True),
    Column("keyspace", Text, ForeignKey("keyspaces.name"), nullable=False),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("environment", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("team", Text),
    Column("application", Text),
    Column("access", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # JSON
    Column("limits", Text, nullable=False),  # JSON
    Column("plan", Text),
    Column("expires_at", BigInteger),
    Column("allowed_ips", Text, nullable=False),  # JSON
    Column("metadata", Text, nullable=False),  # JSON
    Column("state", Text, nullable=False),
    Column("state_reason", Text),
    Column("disabled_until", BigInteger),  # of a disabled one: from then on it is active
    Column("parent", Text),
    Column("binding", Text),  # JSON
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("deleted_at", BigInteger),
    Column("search", Text, nullable=False),  # what a search looks through, in lower case
)
Index("keys_by_account", keys.c.account_id, keys.c.created_at, keys.c.id)
Index("keys_by_time", keys.c.created_at, keys.c.id)
Index("keys_by_names", keys.c.name, keys.c.id)
Index("keys_by_name", keys.c.account_id, keys.c.name, keys.c.id)
_searched: Final = (keys.c.account_id, keys.c.keyspace, keys.c.created_at, keys.c.id)
Index("keys_by_search", *_searched, keys.c.search, info={"only": "sqlite"})
#: An entry of PostgreSQL's indexes holds 2,700 bytes, and what a search looks through may be longer.
Index("keys_by_keyspace", *_searched, info={"only": "postgresql"})
Index("keys_by_parent", keys.c.parent)
Index("keys_by_expiry", keys.c.expires_at)
Index("keys_by_return", keys.c.disabled_until)

secrets = Table(
    "secrets",
    keys_file,
    Column("key_id", Text, ForeignKey("keys.id"), nullable=False),
    Column("n", Integer, nullable=False),
    Column("mac", LargeBinary, nullable=False),
    Column("pepper", Integer, nullable=False),
    Column("hint", Text, nullable=False),  # JSON: spelling -> last four characters
    Column("created_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger),
    Column(
        "starts_rotation", Integer, nullable=False
    ),  # 1 until its first use has ended the secrets before it
    Column("grace", BigInteger),  # microseconds that the earlier secrets keep after that use
    PrimaryKeyConstraint("key_id", "n"),
)

Index("secrets_by_end", secrets.c.ends_at)

#: Where the credentials of an earlier system lead: by a keyed digest, since they name no key. Never the digest itself.
imported = Table(
    "imported",
    keys_file,
    Column("tag", LargeBinary, primary_key=True),
    Column("key_id", Text, ForeignKey("keys.id"), nullable=False),
)
Index("imported_by_key", imported.c.key_id)

#: Creations that were asked under an ``Idempotency-Key``, and what each made: never a secret, not even the key's text.
creations = Table(
    "creations",
    keys_file,
    Column("caller", Text, nullable=False),  # the id of the key that asked
    Column("route", Text, nullable=False),
    Column("idempotency_key", LargeBinary, nullable=False),  # SHA-256
    Column("fingerprint", LargeBinary, nullable=False),  # SHA-256 of what was asked
    Column("made", Text, nullable=False),  # the id of what was made
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("caller", "route", "idempotency_key"),
)
Index("creations_by_time", creations.c.at)

people = Table(
    "people",
    keys_file,
    Column("id", Text, primary_key=True),
    Column("email", Text, nullable=False, unique=True),  # in lower case
    Column("name", Text, nullable=False),
    Column("password", Text),  # as argon2 writes it; nothing until the person has chosen one
    Column("short_since", BigInteger),  # since when the password is one that needs a second factor beside it
    Column("operator_since", BigInteger),
    Column(
        "operator_grouped_at", BigInteger
    ),  # when the provider's groups made them one; nothing where a hand did
    Column("disabled_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

memberships = Table(
    "memberships",
    keys_file,
    Column("person_id", Text, ForeignKey("people.id"), nullable=False),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("role", Text, nullable=False),
    Column("access", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # JSON
    Column("since", BigInteger, nullable=False),
    Column("accepted_at", BigInteger),
    Column("grouped_at", BigInteger),  # when the provider's groups gave it; nothing where a hand did
    PrimaryKeyConstraint("person_id", "account_id"),
)
Index("memberships_by_account", memberships.c.account_id, memberships.c.person_id)

#: Whom an identity provider means by a subject: never by an address of mail.
identities = Table(
    "identities",
    keys_file,
    Column("issuer", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("person_id", Text, ForeignKey("people.id"), nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("issuer", "subject"),
    UniqueConstraint("person_id", "issuer"),
)

#: Second factors. The secrets are sealed under the installation's: the number of its entry, a nonce, AES-256-GCM.
factors = Table(
    "factors",
    keys_file,
    Column("person_id", Text, ForeignKey("people.id"), primary_key=True),
    Column("sealed", LargeBinary),
    Column("since", BigInteger),
    Column("step", BigInteger, nullable=False),  # the newest that was accepted
    Column("offered", LargeBinary),  # one that is to be confirmed
    Column("offered_at", BigInteger),
)

recovery_codes = Table(
    "recovery_codes",
    keys_file,
    Column("person_id", Text, ForeignKey("people.id"), nullable=False),
    Column("digest", LargeBinary, nullable=False),  # SHA-256
    PrimaryKeyConstraint("person_id", "digest"),
)

#: One-time links: set-up, invitation, reset. What is kept is the SHA-256 of what the link holds.
links = Table(
    "links",
    keys_file,
    Column("digest", LargeBinary, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("person_id", Text),
    Column("account_id", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, nullable=False),
)
Index("links_by_person", links.c.person_id)

sessions = Table(
    "sessions",
    keys_file,
    Column("digest", LargeBinary, primary_key=True),  # SHA-256 of what the cookie holds
    Column("id", Text, nullable=False, unique=True),
    Column("person_id", Text, ForeignKey("people.id"), nullable=False),
    Column("began_at", BigInteger, nullable=False),
    Column("proven_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    Column("issuer", Text),  # the provider that began it; nothing where a password did
    Column("factor_at", BigInteger),  # when that provider saw a second factor, where its word on it is taken
)
Index("sessions_by_person", sessions.c.person_id)

#: Visits of the portal. What the link holds and what the cookie holds are kept as their SHA-256.
portal_sessions = Table(
    "portal_sessions",
    keys_file,
    Column("id", Text, primary_key=True),
    Column("code", LargeBinary, unique=True),  # of the link, until it is followed
    Column("digest", LargeBinary, unique=True),  # of the cookie, from then on
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("keyspace", Text),
    Column("environment", Text),
    Column("subject", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("access", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # JSON
    Column("return_url", Text, nullable=False),
    Column("preview", Integer, nullable=False),  # 1 where nothing may be changed
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("link_ends_at", BigInteger, nullable=False),
    Column("began_at", BigInteger),
    Column("source", Text, nullable=False),  # where the link was followed
    Column("ends_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
)
Index("portal_sessions_by_account", portal_sessions.c.account_id, portal_sessions.c.created_at)
Index("portal_sessions_by_end", portal_sessions.c.ends_at)

changes = Table(
    "changes",
    keys_file,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),  # key, account, keyspace
    Column("ref", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

#: The processes that answer from memory on PostgreSQL; on SQLite memory is shared, and nobody is registered.
workers = Table(
    "workers",
    keys_file,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),  # for people: host and process
    Column("max_stale", BigInteger, nullable=False),  # microseconds that it may serve without the store
    Column("confirmed", BigInteger, nullable=False),  # the newest change that it has acted upon
    Column("beat", BigInteger, nullable=False),  # moves while it lives
    Column("registered_at", BigInteger, nullable=False),
)

audit = Table(
    "audit",
    keys_file,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("actor_kind", Text, nullable=False),
    Column("actor_id", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target_kind", Text, nullable=False),
    Column("target_id", Text, nullable=False),
    Column("account", Text),
    Column("detail", Text, nullable=False),  # JSON
    Column("request_id", Text, nullable=False),
    Column("key_n", Integer, nullable=False),
    Column("mac", LargeBinary, nullable=False),
)
Index("audit_by_target", audit.c.target_id, audit.c.seq)

# ------------------------------------------------------------------------------------------------------------- webhooks

endpoints = Table(
    "endpoints",
    keys_file,
    Column("id", Text, primary_key=True),
    Column("url", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("events", Text, nullable=False),  # JSON; empty: all
    Column("account", Text),  # a username; these three are what it is bound to
    Column("keyspace", Text),
    Column("environment", Text),
    Column("state", Text, nullable=False),
    Column("state_reason", Text),
    Column("challenge", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

#: What the signing secrets of endpoints derive from, together with the installation's secret. Never the secrets.
endpoint_secrets = Table(
    "endpoint_secrets",
    keys_file,
    Column("endpoint_id", Text, ForeignKey("endpoints.id"), nullable=False),
    Column("n", Integer, nullable=False),
    Column("root", Integer, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger),
    PrimaryKeyConstraint("endpoint_id", "n"),
)

#: Messages that a change has caused, written with it, until they have been carried over to ``deliveries``.
outbox = Table(
    "outbox",
    keys_file,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("message_id", Text, nullable=False),
    Column("endpoint_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

#: One row: up to when the calendar was read, and what it causes (expiry near, a grace at its end) was written down.
calendar = Table(
    "calendar",
    keys_file,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("until", BigInteger, nullable=False),
)

#: One row: the number and the MAC of the newest audit entry, locked last in every transaction.
audit_head = Table(
    "audit_head",
    keys_file,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("mac", LargeBinary, nullable=False),
)

spent = Table(
    "spent",
    spend_file,
    Column("subject", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("period", BigInteger, nullable=False),  # its first instant; 0 for credits
    Column("used", BigInteger, nullable=False),
    PrimaryKeyConstraint("subject", "name", "period"),
)

rated = Table(
    "rated",
    spend_file,
    Column("subject", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("bucket", BigInteger, nullable=False),  # its first instant
    Column("used", BigInteger, nullable=False),
    PrimaryKeyConstraint("subject", "name", "bucket"),
)

Index("spent_by_period", spent.c.period)
Index("rated_by_bucket", rated.c.bucket)

#: What each worker has taken ahead, and what it had spent of that when it last wrote. Both only grow.
blocks = Table(
    "blocks",
    spend_file,
    Column("worker", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("period", BigInteger, nullable=False),  # as in ``spent``; -1 for a rate
    Column("taken", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("worker", "subject", "name", "period"),
)
Index("blocks_by_counter", blocks.c.subject, blocks.c.name, blocks.c.period)


def _usage(name: str, begin: str) -> Table:
    """Counts in spans of one length. Every count is in one of the three tables."""
    return Table(
        name,
        usage_file,
        Column("key_id", Text, nullable=False),  # empty: not proven to be anybody's
        Column("keyspace", Text, nullable=False),
        Column("environment", Text, nullable=False),
        Column("account_id", Text, nullable=False),
        Column(begin, BigInteger, nullable=False),
        Column("code", Text, nullable=False),
        Column("resource", Text, nullable=False),
        Column("count", BigInteger, nullable=False),
        PrimaryKeyConstraint("key_id", "keyspace", "environment", begin, "code", "resource"),
        Index(f"usage_by_{begin}", begin),
    )


usage_minutes = _usage("usage_minutes", "minute")
usage_hours = _usage("usage_hours", "hour")
usage_days = _usage("usage_days", "day")

last_used = Table(
    "last_used",
    usage_file,
    Column("key_id", Text, nullable=False),
    Column("n", Integer, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("ip", Text),
    PrimaryKeyConstraint("key_id", "n"),
)

#: The newest batch of counts that each worker has flushed: a batch is carried over once, whatever is retried.
flushed = Table(
    "flushed",
    usage_file,
    Column("worker", Text, primary_key=True),
    Column("batch", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
)

#: Refused requests, the newest of them: what was really wrong, for whoever may know. Never a secret.
refusals = Table(
    "refusals",
    usage_file,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("request_id", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("code", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("keyspace", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("account_id", Text, nullable=False),  # the key's; empty without one
    Column("key_id", Text, nullable=False),  # of a key that exists and was named, proven or not; or empty
    Column("scheme", Text),
    Column("ip", Text),
    Column("method", Text),
    Column("resource", Text),
    Column("dropped", BigInteger, nullable=False),  # how many before this one there was no room for
    Column("fingerprint", Text, nullable=False),  # keyed; of what was presented and not proven, or empty
    sqlite_autoincrement=True,
)
Index("refusals_by_request", refusals.c.request_id)
Index("refusals_by_key", refusals.c.key_id, refusals.c.seq)
Index("refusals_by_account", refusals.c.account_id, refusals.c.seq)

#: What was odd about requests that were let in, until the watch has read it.
signals = Table(
    "signals",
    usage_file,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),  # use, browser
    Column("keyspace", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("ip", Text),
    Column("before", BigInteger),  # of a use: when the key was used last before it
    sqlite_autoincrement=True,
)

#: The networks that each key was used from.
networks = Table(
    "networks",
    usage_file,
    Column("key_id", Text, nullable=False),
    Column("network", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("key_id", "network"),
)
Index("networks_by_time", networks.c.at)

#: One row: up to which refusal the watch has read.
watched = Table(
    "watched",
    usage_file,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("refusal", BigInteger, nullable=False),
)

#: Signs of misuse. Of one thing that goes on there is one alert.
alerts = Table(
    "alerts",
    usage_file,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("rule", Text, nullable=False),
    Column("about", Text, nullable=False),  # the key, or the source
    Column("severity", Text, nullable=False),
    Column("act", Text, nullable=False),  # what is suggested
    Column("state", Text, nullable=False),  # open, acknowledged, resolved
    Column("account", Text),  # a username
    Column("keyspace", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("key_id", Text, nullable=False),  # or empty
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("raised_at", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("evidence", Text, nullable=False),  # JSON
    Column("acted_at", BigInteger),
    Column("acted_by", Text),
    sqlite_autoincrement=True,
)
Index("alerts_by_subject", alerts.c.rule, alerts.c.keyspace, alerts.c.about, alerts.c.seq)
Index("alerts_by_key", alerts.c.key_id, alerts.c.seq)
Index("alerts_by_account", alerts.c.account, alerts.c.seq)

#: Secrets that were reported as found where they should not be, each once. Never the secret, and nothing that was not ours.
leaks = Table(
    "leaks",
    usage_file,
    Column("key_id", Text, nullable=False),
    Column("secret", Integer, nullable=False),  # its number
    Column("at", BigInteger, nullable=False),
    Column("url", Text),
    Column("handled_at", BigInteger),  # null until somebody has seen to it
    PrimaryKeyConstraint("key_id", "secret"),
)
Index("leaks_by_turn", leaks.c.handled_at, leaks.c.at)

#: Who reported leaks within the hour, and how often.
reporters = Table(
    "reporters",
    usage_file,
    Column("source", Text, primary_key=True),
    Column("reports", BigInteger, nullable=False),
    Column("since", BigInteger, nullable=False),
)
Index("reporters_by_time", reporters.c.since)

#: When a session was last seen. Not beside the session itself: a page view writes nothing to the keys file.
seen = Table(
    "seen",
    usage_file,
    Column("session", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
)

#: Failed sign-ins since the last good one, by what was tried: an address of mail, or one of the network.
failed_sign_ins = Table(
    "failed_sign_ins",
    usage_file,
    Column("subject", Text, primary_key=True),  # a keyed digest
    Column("failed", BigInteger, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
)

# ------------------------------------------------------------------------------------------------------------- webhooks

#: Messages and what has become of them: those on their way, and the newest that have arrived or were given up.
deliveries = Table(
    "deliveries",
    usage_file,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("message_id", Text, nullable=False),
    Column("endpoint_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("state", Text, nullable=False),  # waiting, delivered, failed
    Column("attempts", Integer, nullable=False),
    Column("next_at", BigInteger),  # null unless it waits
    Column("last_at", BigInteger),
    Column("status", Integer),
    Column("error", Text, nullable=False),
    UniqueConstraint("message_id", "endpoint_id"),
    sqlite_autoincrement=True,
)
Index("deliveries_by_endpoint", deliveries.c.endpoint_id, deliveries.c.seq)
Index("deliveries_by_turn", deliveries.c.next_at)

#: E-mail about alerts: what is on its way, and the newest that was sent or given up.
mails = Table(
    "mails",
    usage_file,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("message_id", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("state", Text, nullable=False),  # waiting, sent, failed
    Column("attempts", Integer, nullable=False),
    Column("next_at", BigInteger),  # null unless it waits
    Column("last_at", BigInteger),
    Column("error", Text, nullable=False),
    sqlite_autoincrement=True,
)
Index("mails_by_turn", mails.c.next_at)

#: How an endpoint takes its messages.
receivers = Table(
    "receivers",
    usage_file,
    Column("endpoint_id", Text, primary_key=True),
    Column("failing_since", BigInteger),
    Column("failures", Integer, nullable=False),  # one after another
    Column("rests_until", BigInteger, nullable=False),
)

#: Quotas that were told of, so that each is told of once a period; and keys that nobody uses: since when, and their end.
told = Table(
    "told",
    usage_file,
    Column("subject", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("period", BigInteger, nullable=False),
    Column("event", Text, nullable=False),
    PrimaryKeyConstraint("subject", "name", "period", "event"),
)

#: Which process does what only one may do at a time, and until when unless it says so again.
leases = Table(
    "leases",
    usage_file,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", BigInteger, nullable=False),
)
