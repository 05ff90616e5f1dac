"""Where the credentials of an earlier system lead."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "imported",
        sa.Column("tag", sa.LargeBinary(), primary_key=True),
        sa.Column("key_id", TEXT, sa.ForeignKey("keys.id"), nullable=False),
    )
    op.create_index("imported_by_key", "imported", ["key_id"])
