"""Who may ask: bearer tokens compared in constant time, and the Host header of a laptop's server."""

import hashlib
import hmac
import ipaddress

from crewcast.contract.problem import Problem


class Tokens:
    """The tokens of a server. Only their digests are kept."""

    def __init__(self, *tokens: str) -> None:
        self._digests = {_digest(token): hashlib.sha256(token.encode()).hexdigest()[:16] for token in tokens}

    def check(self, authorization: str | None) -> str:
        """The short name under which the token's keys and runs are kept.

        Raises Problem 401 for a missing or unknown token.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and token:
            given = _digest(token.strip())
            found = None
            for digest, name in self._digests.items():
                if hmac.compare_digest(digest, given):
                    found = name
            if found is not None:
                return found
        raise Problem(
            401,
            "Unauthorized",
            "Invalid or missing bearer token",
            headers={"www-authenticate": 'Bearer realm="crewcast"'},
        )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def host_allowed(header: str, names: frozenset[str]) -> bool:
    """Whether a Host header is one that only this server's own user can have typed.

    A page of a stranger can point its own name at 127.0.0.1 (rebinding); it cannot use an address
    or `localhost`. So literal addresses, localhost and the configured `names` pass.
    """
    host = header.rsplit(":", 1)[0] if header.rfind("]") < header.rfind(":") else header
    host = host.strip("[]").lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost") or host in names:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
