"""Migrations of the store; server.store.database runs them at start."""
