"""The embedded durable service: executions in one SQLite file."""

from pyworkflow.services.port import Durability
from pyworkflow.services.sqlite._service import SqliteService

__all__ = ["Durability", "SqliteService"]
