"""Who signs in by an identity provider, what its groups gave them, and which sessions it began."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
WHOLE = sa.BigInteger()


def upgrade() -> None:
    op.create_table(
        "identities",
        sa.Column("issuer", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("person_id", TEXT, sa.ForeignKey("people.id"), nullable=False),
        sa.Column("since", WHOLE, nullable=False),
        sa.Column("seen_at", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("issuer", "subject"),
        sa.UniqueConstraint("person_id", "issuer"),
    )
    op.add_column("people", sa.Column("operator_grouped_at", WHOLE))
    op.add_column("memberships", sa.Column("grouped_at", WHOLE))
    op.add_column("sessions", sa.Column("issuer", TEXT))
    op.add_column("sessions", sa.Column("factor_at", WHOLE))
