"""Calibrations and the rows they are fitted on."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "calibrations",
        _number(),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column("devices", sa.JSON(), nullable=False),
        sa.Column("engines", sa.JSON(), nullable=False),
        sa.Column("engine_versions", sa.JSON(), nullable=False),
        sa.Column("architectures", sa.JSON(), nullable=False),
        sa.Column("scores", sa.JSON(), nullable=False),
        sa.Column("remarks", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_calibrations"),
        sa.UniqueConstraint("name", name="uq_calibrations_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "calibration_rows",
        _number(),
        sa.Column("calibration", sa.Text(), nullable=False),
        sa.Column("row", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_calibration_rows"),
        sa.ForeignKeyConstraint(
            ["calibration"],
            ["calibrations.name"],
            name="fk_calibration_rows_calibration_calibrations",
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_calibration_rows_calibration", "calibration_rows", ["calibration"])


def downgrade() -> None:
    op.drop_table("calibration_rows")
    op.drop_table("calibrations")


def _number() -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column("number", kind, nullable=False, autoincrement=True)
