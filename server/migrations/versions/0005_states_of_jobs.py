"""How a job's device stood meanwhile, and what the time of its measurements went to."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "job_states",
        sa.Column("number", number, autoincrement=True, nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("time", sa.DateTime(), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_states_job_id_jobs"),
        sa.PrimaryKeyConstraint("number", name="pk_job_states"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_job_states_job_id", "job_states", ["job_id"])
    op.add_column("measurements", sa.Column("seconds", sa.JSON()))


def downgrade() -> None:
    op.drop_column("measurements", "seconds")
    op.drop_table("job_states")
