"""Imported measurements: their source, the engine they stand for, and whose a cost model is."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("source", "engine"):
        op.add_column("environments", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    # 4: measured locally, as all cost models were.
    op.add_column(
        "cost_models", sa.Column("provenance", sa.Integer(), nullable=False, server_default="4")
    )


def downgrade() -> None:
    op.drop_column("cost_models", "provenance")
    for name in ("source", "engine"):
        op.drop_column("environments", name)
