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
