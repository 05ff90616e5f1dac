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
