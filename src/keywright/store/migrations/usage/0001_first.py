"""What was counted: verdicts by minute, the last use of each secret, which batches have arrived; and refusals."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    for begin in ("minute", "hour", "day"):
        op.create_table(
            f"usage_{begin}s",
            sa.Column("key_id", TEXT, nullable=False),
            sa.Column("keyspace", TEXT, nullable=False),
            sa.Column("environment", TEXT, nullable=False),
            sa.Column("account_id", TEXT, nullable=False),
            sa.Column(begin, sa.BigInteger(), nullable=False),
            sa.Column("code", TEXT, nullable=False),
            sa.Column("resource", TEXT, nullable=False),
            sa.Column("count", sa.BigInteger(), nullable=False),
            sa.PrimaryKeyConstraint("key_id", "keyspace", "environment", begin, "code", "resource"),
        )
        op.create_index(f"usage_by_{begin}", f"usage_{begin}s", [begin])
    op.create_table(
        "last_used",
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("ip", TEXT),
        sa.PrimaryKeyConstraint("key_id", "n"),
    )
    op.create_table(
        "flushed",
        sa.Column("worker", TEXT, primary_key=True),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "refusals",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("keyspace", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("scheme", sa.Text()),
        sa.Column("ip", sa.Text()),
        sa.Column("method", sa.Text()),
        sa.Column("resource", sa.Text()),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.Column("fingerprint", TEXT, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("refusals_by_request", "refusals", ["request_id"])
    op.create_index("refusals_by_key", "refusals", ["key_id", "seq"])
    op.create_index("refusals_by_account", "refusals", ["account_id", "seq"])
    op.create_table(
        "seen",
        sa.Column("session", TEXT, primary_key=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "failed_sign_ins",
        sa.Column("subject", TEXT, primary_key=True),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
    )
    _webhooks()
    _misuse()


def _numbered() -> sa.Column[int]:
    return sa.Column(
        "seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
    )


def _misuse() -> None:
    op.create_table(
        "signals",
        _numbered(),
        sa.Column("at", sa.BigInteger(), nullable=False),
        *(
            sa.Column(name, TEXT, nullable=False)
            for name in ("kind", "keyspace", "environment", "account_id", "key_id")
        ),
        sa.Column("ip", TEXT),
        sa.Column("before", sa.BigInteger()),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "networks",
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("network", TEXT, nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "network"),
    )
    op.create_index("networks_by_time", "networks", ["at"])
    op.create_table(
        "watched",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("refusal", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "alerts",
        _numbered(),
        sa.Column("id", TEXT, nullable=False, unique=True),
        *(sa.Column(name, TEXT, nullable=False) for name in ("rule", "about", "severity", "act", "state")),
        sa.Column("account", TEXT),
        *(sa.Column(name, TEXT, nullable=False) for name in ("keyspace", "environment", "key_id")),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in ("first_at", "last_at", "raised_at", "count")
        ),
        sa.Column("evidence", TEXT, nullable=False),
        sa.Column("acted_at", sa.BigInteger()),
        sa.Column("acted_by", TEXT),
        sqlite_autoincrement=True,
    )
    op.create_index("alerts_by_subject", "alerts", ["rule", "keyspace", "about", "seq"])
    op.create_index("alerts_by_key", "alerts", ["key_id", "seq"])
    op.create_index("alerts_by_account", "alerts", ["account", "seq"])
    op.create_table(
        "leaks",
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("secret", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("url", TEXT),
        sa.Column("handled_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("key_id", "secret"),
    )
    op.create_index("leaks_by_turn", "leaks", ["handled_at", "at"])
    op.create_table(
        "reporters",
        sa.Column("source", TEXT, primary_key=True),
        sa.Column("reports", sa.BigInteger(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
    )
    op.create_index("reporters_by_time", "reporters", ["since"])


def _webhooks() -> None:
    op.create_table(
        "deliveries",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("message_id", TEXT, nullable=False),
        sa.Column("endpoint_id", TEXT, nullable=False),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.BigInteger()),
        sa.Column("last_at", sa.BigInteger()),
        sa.Column("status", sa.Integer()),
        sa.Column("error", TEXT, nullable=False),
        sa.UniqueConstraint("message_id", "endpoint_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("deliveries_by_endpoint", "deliveries", ["endpoint_id", "seq"])
    op.create_index("deliveries_by_turn", "deliveries", ["next_at"])
    op.create_table(
        "mails",
        _numbered(),
        *(sa.Column(name, TEXT, nullable=False) for name in ("message_id", "recipient", "subject", "body")),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.BigInteger()),
        sa.Column("last_at", sa.BigInteger()),
        sa.Column("error", TEXT, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("mails_by_turn", "mails", ["next_at"])
    op.create_table(
        "receivers",
        sa.Column("endpoint_id", TEXT, primary_key=True),
        sa.Column("failing_since", sa.BigInteger()),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("rests_until", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "told",
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("period", sa.BigInteger(), nullable=False),
        sa.Column("event", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("subject", "name", "period", "event"),
    )
    op.create_table(
        "leases",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
    )
