"""Keys for tests: made once in a run, since making them takes longer than most tests."""

from datetime import UTC, datetime
from functools import cache

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from ducc.publish.keys import SigningKeys, generate_keys

FQRN = "repo.example.org"
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@cache
def keys(fqrn: str = FQRN, number: int = 0) -> tuple[SigningKeys, RSAPrivateKey]:
    """A repository's signing keys and master key; another *number*, other keys."""
    del number
    return generate_keys(fqrn, NOW)
