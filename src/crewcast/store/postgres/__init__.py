"""PostgreSQL for many nodes: batched statements, claims that pass over what others hold, leases on its clock."""

from crewcast.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
