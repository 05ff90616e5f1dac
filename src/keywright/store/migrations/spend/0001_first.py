"""What was taken from quotas, credits and rates."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    for table, start in (("spent", "period"), ("rated", "bucket")):
        op.create_table(
            table,
            sa.Column("subject", TEXT, nullable=False),
            sa.Column("name", TEXT, nullable=False),
            sa.Column(start, sa.BigInteger(), nullable=False),
            sa.Column("used", sa.BigInteger(), nullable=False),
            sa.PrimaryKeyConstraint("subject", "name", start),
        )
    op.create_index("spent_by_period", "spent", ["period"])
    op.create_index("rated_by_bucket", "rated", ["bucket"])
    op.create_table(
        "blocks",
        sa.Column("worker", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("period", sa.BigInteger(), nullable=False),
        sa.Column("taken", sa.BigInteger(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("worker", "subject", "name", "period"),
    )
    op.create_index("blocks_by_counter", "blocks", ["subject", "name", "period"])
