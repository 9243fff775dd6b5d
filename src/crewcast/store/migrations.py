"""Numbered migrations, each known by its checksum."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from crewcast.core.errors import StoreUnusable


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load_migrations(package: str) -> list[Migration]:
    """Those in the folder `migrations` of an engine's package, in order."""
    files = sorted(
        (f for f in resources.files(package).joinpath("migrations").iterdir() if f.name.endswith(".sql")),
        key=lambda f: f.name,
    )
    migrations = [Migration(int(f.name[:4]), f.name.removesuffix(".sql"), f.read_text()) for f in files]
    assert [m.number for m in migrations] == list(range(1, len(migrations) + 1))
    return migrations


def missing(where: object, applied: Mapping[int, str], migrations: Sequence[Migration]) -> list[Migration]:
    """What has not been applied yet, of what `applied` has by number and checksum.

    Raises StoreUnusable for a store that a newer Crewcast has written, or one with other migrations.
    """
    version = max(applied, default=0)
    if version > len(migrations):
        raise StoreUnusable(
            f"{where} was written by a newer Crewcast (schema {version}, this one knows {len(migrations)}): "
            "upgrade Crewcast, or restore the backup made before the upgrade"
        )
    for migration in migrations[:version]:
        if applied.get(migration.number) != migration.sha256:
            raise StoreUnusable(
                f"{where} has another migration {migration.name} than this Crewcast: "
                "install the version that wrote it"
            )
    return list(migrations[version:])
