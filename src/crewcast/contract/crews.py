"""What a worker says of a crew that it serves, for the nodes that take its kickoffs: JSON, in the database.

Nodes of several releases may share a database, so fields are only ever added, each with a default.
"""

import msgspec
from msgspec import Struct

from crewcast.contract.kickoff import CrewInputs


class Described(Struct, frozen=True, omit_defaults=True):
    """A crew that was loaded, or the `error` of one that cannot be. `tasks` is None for a flow; `only`, `derives` and
    `prompts` are those of `CrewInputs`.
    """

    kind: str
    inputs: list[str] = []
    required: list[str] = []
    only: bool = False
    derives: bool = False
    prompts: bool = True
    tasks: list[str] | None = None
    warnings: list[str] = []
    error: str | None = None

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @property
    def takes(self) -> CrewInputs | None:
        """What a kickoff is held to; None if that is not known."""
        if self.error is not None:
            return None
        return CrewInputs(
            self.inputs, self.required, only=self.only, derives=self.derives, prompts=self.prompts
        )


def decode(described: bytes) -> Described:
    """Raises msgspec.DecodeError, of which a ValidationError is one, for what no release of ours has written."""
    return msgspec.json.decode(described, type=Described)
