"""Entry point that alembic calls; the caller's connection and transaction are used."""

from alembic import context

from server.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # All or nothing: server.store.database opens real transactions on SQLite, too.
    transactional_ddl=True,
    # SQLite alters by copying.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
