"""The embedded durable service: executions in one SQLite file."""

from pyworkflow.services.sqlite.service import Durability, SqliteService

__all__ = ["Durability", "SqliteService"]
