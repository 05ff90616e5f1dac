"""Keys, accounts, keyspaces, the changes that announce them, and the audit trail that nobody can edit unseen."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
BYTES, WHOLE, SMALL = sa.LargeBinary(), sa.BigInteger(), sa.Integer()


def upgrade() -> None:
    op.create_table(
        "canaries",
        sa.Column("n", SMALL, primary_key=True, autoincrement=False),
        sa.Column("mac", BYTES, nullable=False),
        sa.Column("created_at", WHOLE, nullable=False),
    )
    op.create_table(
        "keyspaces",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("prefix", TEXT, nullable=False, unique=True),
        sa.Column("definition", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("updated_at", WHOLE, nullable=False),
    )
    op.create_table(
        "accounts",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("username", TEXT, nullable=False, unique=True),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("limits", TEXT, nullable=False),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("updated_at", WHOLE, nullable=False),
    )
    _keys()
    op.create_table(
        "creations",
        sa.Column("caller", TEXT, nullable=False),
        sa.Column("route", TEXT, nullable=False),
        sa.Column("idempotency_key", BYTES, nullable=False),
        sa.Column("fingerprint", BYTES, nullable=False),
        sa.Column("made", TEXT, nullable=False),
        sa.Column("at", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("caller", "route", "idempotency_key"),
    )
    op.create_index("creations_by_time", "creations", ["at"])
    _people()
    op.create_table(
        "changes",
        sa.Column(
            "seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
        ),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("ref", TEXT, nullable=False),
        sa.Column("at", WHOLE, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "workers",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("max_stale", WHOLE, nullable=False),
        sa.Column("confirmed", WHOLE, nullable=False),
        sa.Column("beat", WHOLE, nullable=False),
        sa.Column("registered_at", WHOLE, nullable=False),
    )
    _audit()


def _keys() -> None:
    op.create_table(
        "keys",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("keyspace", TEXT, sa.ForeignKey("keyspaces.name"), nullable=False),
        sa.Column("account_id", TEXT, sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("environment", TEXT, nullable=False),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("description", TEXT, nullable=False),
        sa.Column("team", TEXT),
        sa.Column("application", TEXT),
        sa.Column("access", TEXT, nullable=False),
        sa.Column("scopes", TEXT, nullable=False),
        sa.Column("limits", TEXT, nullable=False),
        sa.Column("plan", TEXT),
        sa.Column("expires_at", WHOLE),
        sa.Column("allowed_ips", TEXT, nullable=False),
        sa.Column("metadata", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("state_reason", TEXT),
        sa.Column("disabled_until", WHOLE),
        sa.Column("parent", TEXT),
        sa.Column("binding", TEXT),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("updated_at", WHOLE, nullable=False),
        sa.Column("ended_at", WHOLE),
        sa.Column("deleted_at", WHOLE),
        sa.Column("search", TEXT, nullable=False),
    )
    op.create_index("keys_by_account", "keys", ["account_id", "created_at", "id"])
    op.create_index("keys_by_time", "keys", ["created_at", "id"])
    op.create_index("keys_by_names", "keys", ["name", "id"])
    op.create_index("keys_by_name", "keys", ["account_id", "name", "id"])
    if op.get_bind().dialect.name == "sqlite":
        op.create_index("keys_by_search", "keys", ["account_id", "keyspace", "created_at", "id", "search"])
    else:
        op.create_index("keys_by_keyspace", "keys", ["account_id", "keyspace", "created_at", "id"])
    op.create_index("keys_by_parent", "keys", ["parent"])
    op.create_index("keys_by_expiry", "keys", ["expires_at"])
    op.create_index("keys_by_return", "keys", ["disabled_until"])
    op.create_table(
        "secrets",
        sa.Column("key_id", TEXT, sa.ForeignKey("keys.id"), nullable=False),
        sa.Column("n", SMALL, nullable=False),
        sa.Column("mac", BYTES, nullable=False),
        sa.Column("pepper", SMALL, nullable=False),
        sa.Column("hint", TEXT, nullable=False),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("ends_at", WHOLE),
        sa.Column("starts_rotation", SMALL, nullable=False),
        sa.Column("grace", WHOLE),
        sa.PrimaryKeyConstraint("key_id", "n"),
    )
    op.create_index("secrets_by_end", "secrets", ["ends_at"])


def _people() -> None:
    op.create_table(
        "people",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("email", TEXT, nullable=False, unique=True),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("password", TEXT),
        sa.Column("short_since", WHOLE),
        sa.Column("operator_since", WHOLE),
        sa.Column("disabled_at", WHOLE),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("updated_at", WHOLE, nullable=False),
    )
    op.create_table(
        "memberships",
        sa.Column("person_id", TEXT, sa.ForeignKey("people.id"), nullable=False),
        sa.Column("account_id", TEXT, sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("access", TEXT, nullable=False),
        sa.Column("scopes", TEXT, nullable=False),
        sa.Column("since", WHOLE, nullable=False),
        sa.Column("accepted_at", WHOLE),
        sa.PrimaryKeyConstraint("person_id", "account_id"),
    )
    op.create_index("memberships_by_account", "memberships", ["account_id", "person_id"])
    op.create_table(
        "factors",
        sa.Column("person_id", TEXT, sa.ForeignKey("people.id"), primary_key=True),
        sa.Column("sealed", BYTES),
        sa.Column("since", WHOLE),
        sa.Column("step", WHOLE, nullable=False),
        sa.Column("offered", BYTES),
        sa.Column("offered_at", WHOLE),
    )
    op.create_table(
        "recovery_codes",
        sa.Column("person_id", TEXT, sa.ForeignKey("people.id"), nullable=False),
        sa.Column("digest", BYTES, nullable=False),
        sa.PrimaryKeyConstraint("person_id", "digest"),
    )
    op.create_table(
        "links",
        sa.Column("digest", BYTES, primary_key=True),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("person_id", TEXT),
        sa.Column("account_id", TEXT),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("ends_at", WHOLE, nullable=False),
    )
    op.create_index("links_by_person", "links", ["person_id"])
    op.create_table(
        "sessions",
        sa.Column("digest", BYTES, primary_key=True),
        sa.Column("id", TEXT, nullable=False, unique=True),
        sa.Column("person_id", TEXT, sa.ForeignKey("people.id"), nullable=False),
        sa.Column("began_at", WHOLE, nullable=False),
        sa.Column("proven_at", WHOLE, nullable=False),
        sa.Column("ends_at", WHOLE, nullable=False),
        sa.Column("source", TEXT, nullable=False),
    )
    op.create_index("sessions_by_person", "sessions", ["person_id"])


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("at", WHOLE, nullable=False),
        sa.Column("actor_kind", TEXT, nullable=False),
        sa.Column("actor_id", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("target_kind", TEXT, nullable=False),
        sa.Column("target_id", TEXT, nullable=False),
        sa.Column("account", TEXT),
        sa.Column("detail", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("key_n", SMALL, nullable=False),
        sa.Column("mac", BYTES, nullable=False),
    )
    op.create_index("audit_by_target", "audit", ["target_id", "seq"])
    op.create_table(
        "audit_head",
        sa.Column("id", SMALL, primary_key=True, autoincrement=False),
        sa.Column("seq", WHOLE, nullable=False),
        sa.Column("mac", BYTES, nullable=False),
    )
    _webhooks()
    head = sa.table("audit_head", sa.column("id", SMALL), sa.column("seq", WHOLE), sa.column("mac", BYTES))
    op.bulk_insert(head, [{"id": 1, "seq": 0, "mac": bytes(32)}])
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON audit "
                "BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END"
            )
    else:
        op.execute(
            "CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the audit trail is append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit "
            "FOR EACH ROW EXECUTE FUNCTION audit_append_only()"
        )


def _webhooks() -> None:
    op.create_table(
        "endpoints",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("url", TEXT, nullable=False),
        sa.Column("description", TEXT, nullable=False),
        sa.Column("events", TEXT, nullable=False),
        sa.Column("account", TEXT),
        sa.Column("keyspace", TEXT),
        sa.Column("environment", TEXT),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("state_reason", TEXT),
        sa.Column("challenge", TEXT),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("updated_at", WHOLE, nullable=False),
    )
    op.create_table(
        "endpoint_secrets",
        sa.Column("endpoint_id", TEXT, sa.ForeignKey("endpoints.id"), nullable=False),
        sa.Column("n", SMALL, nullable=False),
        sa.Column("root", SMALL, nullable=False),
        sa.Column("salt", BYTES, nullable=False),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("ends_at", WHOLE),
        sa.PrimaryKeyConstraint("endpoint_id", "n"),
    )
    op.create_table(
        "outbox",
        sa.Column(
            "seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
        ),
        sa.Column("message_id", TEXT, nullable=False),
        sa.Column("endpoint_id", TEXT, nullable=False),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.Column("at", WHOLE, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "calendar",
        sa.Column("id", SMALL, primary_key=True, autoincrement=False),
        sa.Column("until", WHOLE, nullable=False),
    )
