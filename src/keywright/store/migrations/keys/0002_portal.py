"""Visits of the portal: customers' admins whom the host vouches for."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
BYTES, WHOLE, SMALL = sa.LargeBinary(), sa.BigInteger(), sa.Integer()


def upgrade() -> None:
    op.create_table(
        "portal_sessions",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("code", BYTES, unique=True),
        sa.Column("digest", BYTES, unique=True),
        sa.Column("account_id", TEXT, sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("keyspace", TEXT),
        sa.Column("environment", TEXT),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("access", TEXT, nullable=False),
        sa.Column("scopes", TEXT, nullable=False),
        sa.Column("return_url", TEXT, nullable=False),
        sa.Column("preview", SMALL, nullable=False),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("link_ends_at", WHOLE, nullable=False),
        sa.Column("began_at", WHOLE),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("ends_at", WHOLE, nullable=False),
        sa.Column("ended_at", WHOLE),
    )
    op.create_index("portal_sessions_by_account", "portal_sessions", ["account_id", "created_at"])
    op.create_index("portal_sessions_by_end", "portal_sessions", ["ends_at"])
