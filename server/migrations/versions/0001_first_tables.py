"""First tables: environments, jobs, measurements, cost models, schedules."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "environments",
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("device_name", sa.Text(), nullable=False),
        sa.Column("device_kind", sa.Text(), nullable=False),
        sa.Column("device_uuid", sa.Text(), nullable=False),
        sa.Column("driver_version", sa.Text(), nullable=False),
        sa.Column("cuda_version", sa.Text(), nullable=False),
        sa.Column("torch_version", sa.Text(), nullable=False),
        sa.Column("transformers_version", sa.Text(), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("platform", sa.Text(), nullable=False),
        sa.Column("python_version", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_environments"),
    )
    op.create_table(
        "jobs",
        _number(),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("budget_s", sa.Float(), nullable=False),
        sa.Column("create_time", sa.DateTime(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("target_error", sa.Float(), nullable=False),
        sa.Column("precisions", sa.JSON(), nullable=False),
        sa.Column("schedule_id", sa.Text(), nullable=False),
        sa.Column("spent_s", sa.Float(), nullable=False),
        sa.Column("measurement_count", sa.Integer(), nullable=False),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("error_message", sa.Text(), nullable=False),
        sa.Column("cost_model", sa.Text(), nullable=False),
        sa.Column("skipped", sa.JSON(), nullable=False),
        sa.Column("start_time", sa.DateTime()),
        sa.Column("end_time", sa.DateTime()),
        sa.PrimaryKeyConstraint("number", name="pk_jobs"),
        sa.UniqueConstraint("id", name="uq_jobs_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_state", "jobs", ["state"])
    op.create_table(
        "measurements",
        _number(),
        sa.Column("job_id", sa.Text()),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("precision", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("shape", sa.JSON(), nullable=False),
        sa.Column("median_ms", sa.Float(), nullable=False),
        sa.Column("p10_ms", sa.Float(), nullable=False),
        sa.Column("p90_ms", sa.Float(), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("held_out_group", sa.Text(), nullable=False),
        sa.Column("flags", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_measurements"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_measurements_job_id_jobs"),
        sa.ForeignKeyConstraint(
            ["fingerprint"],
            ["environments.fingerprint"],
            name="fk_measurements_fingerprint_environments",
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_measurements_job_id", "measurements", ["job_id"])
    op.create_index("ix_measurements_kind", "measurements", ["kind"])
    op.create_index("ix_measurements_device_fingerprint", "measurements", ["device", "fingerprint"])
    op.create_table(
        "cost_models",
        _number(),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(), nullable=False),
        sa.Column("measurement_count", sa.Integer(), nullable=False),
        sa.Column("current", sa.Boolean(), nullable=False),
        sa.Column("scores", sa.JSON(), nullable=False),
        sa.Column("precisions", sa.JSON(), nullable=False),
        sa.Column("engines", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_cost_models"),
        sa.UniqueConstraint("id", name="uq_cost_models_id"),
        sa.ForeignKeyConstraint(
            ["fingerprint"],
            ["environments.fingerprint"],
            name="fk_cost_models_fingerprint_environments",
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_cost_models_device_fingerprint", "cost_models", ["device", "fingerprint"])
    op.create_table(
        "cost_model_blobs",
        sa.Column("cost_model_id", sa.Text(), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("cost_model_id", name="pk_cost_model_blobs"),
        sa.ForeignKeyConstraint(
            ["cost_model_id"],
            ["cost_models.id"],
            name="fk_cost_model_blobs_cost_model_id_cost_models",
        ),
    )
    op.create_table(
        "schedules",
        _number(),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("interval_s", sa.Float()),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("budget_s", sa.Float(), nullable=False),
        sa.Column("create_time", sa.DateTime(), nullable=False),
        sa.Column("next_run_time", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_schedules"),
        sa.UniqueConstraint("id", name="uq_schedules_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "schedule_runs",
        _number(),
        sa.Column("schedule_id", sa.Text(), nullable=False),
        sa.Column("time", sa.DateTime(), nullable=False),
        sa.Column("outcome", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("drift", sa.Float()),
        sa.PrimaryKeyConstraint("number", name="pk_schedule_runs"),
        sa.UniqueConstraint("schedule_id", "time", name="uq_schedule_runs_schedule_id"),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedules.id"], name="fk_schedule_runs_schedule_id_schedules"
        ),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    for table in (
        "schedule_runs",
        "schedules",
        "cost_model_blobs",
        "cost_models",
        "measurements",
        "jobs",
        "environments",
    ):
        op.drop_table(table)


def _number() -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column("number", kind, nullable=False, autoincrement=True)
