"""Keys that sign public tokens: their algorithm is fixed by configuration, never by a token; and the JWKS document."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from pydantic import SecretStr

Algorithm = Literal["HS256", "EdDSA", "ES256", "RS256"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = ("HS256", "EdDSA", "ES256", "RS256")
HS256_KID: Final = "hs256"
MIN_RSA_BITS: Final = 2048
MIN_SECRET_BYTES: Final = 32

PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey
PublicKey = Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey


class KeyRefusedError(ValueError):
    """A key that does not fit its algorithm, or cannot be read; the text says what is wanted and never holds the key."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of one algorithm. `signs_with` is None for a key that only verifies; HS256 has no public half."""

    kid: str
    algorithm: Algorithm
    verifies_with: PublicKey | str
    signs_with: PrivateKey | str | None = None

    def __repr__(self) -> str:
        return f"Key(kid={self.kid!r}, algorithm={self.algorithm!r})"

    def public_jwk(self) -> dict[str, Any] | None:
        """The public half as a JWK, None for a shared secret."""
        if isinstance(self.verifies_with, str):
            return None
        return _jwk(self.verifies_with) | {"kid": self.kid, "alg": self.algorithm, "use": "sig"}


def secret_key(secret: SecretStr | str, *, kid: str = HS256_KID) -> Key:
    """A shared secret for HS256. Refuses short ones, and PEM or JWK text: that is a public key by mistake."""
    value = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
    if len(value.encode()) < MIN_SECRET_BYTES:
        raise KeyRefusedError(f"an HS256 secret needs at least {MIN_SECRET_BYTES} bytes")
    if "-----BEGIN" in value or value.lstrip().startswith(("{", "ssh-")):
        raise KeyRefusedError("an HS256 secret must not be a key in PEM, JWK or SSH form")
    return Key(kid=kid, algorithm="HS256", verifies_with=value, signs_with=value)


def private_key(pem: SecretStr | str, algorithm: Algorithm, *, kid: str | None = None) -> Key:
    """A key pair from its private half in PEM, also with its line breaks escaped, as in one-line variables.

    The `kid` is the key's thumbprint unless given.
    """
    text = pem.get_secret_value() if isinstance(pem, SecretStr) else pem
    try:
        loaded = load_pem_private_key(text.replace("\\n", "\n").encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyRefusedError(f"is not a private key in PEM for {algorithm}") from error
    if not isinstance(loaded, (Ed25519PrivateKey, EllipticCurvePrivateKey, RSAPrivateKey)):
        raise KeyRefusedError(f"is not a private key for {algorithm}")
    public = loaded.public_key()
    _check_fits(public, algorithm)
    return Key(kid=kid or thumbprint(public), algorithm=algorithm, verifies_with=public, signs_with=loaded)


def public_key(pem: str, algorithm: Algorithm, *, kid: str | None = None) -> Key:
    """The public half alone, in PEM: verifies, never signs."""
    try:
        loaded = load_pem_public_key(pem.replace("\\n", "\n").encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyRefusedError(f"is not a public key in PEM for {algorithm}") from error
    if not isinstance(loaded, (Ed25519PublicKey, EllipticCurvePublicKey, RSAPublicKey)):
        raise KeyRefusedError(f"is not a public key for {algorithm}")
    _check_fits(loaded, algorithm)
    return Key(kid=kid or thumbprint(loaded), algorithm=algorithm, verifies_with=loaded)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys of the public API. `current` signs.

    All of them verify: `upcoming` is published before it is used, so that every cache of the JWKS knows it in time, and
    `retired` is kept until the last token that it signed has expired. All carry the same algorithm.
    """

    current: Key
    upcoming: Key | None = None
    retired: tuple[Key, ...] = ()

    def __post_init__(self) -> None:
        keys = self.keys
        if self.current.signs_with is None:
            raise KeyRefusedError("the current key cannot sign: its private half is missing")
        if len({key.kid for key in keys}) != len(keys):
            raise KeyRefusedError("two keys carry the same kid")
        if len({key.algorithm for key in keys}) != 1:
            raise KeyRefusedError("all keys of a ring must be of one algorithm")

    @property
    def keys(self) -> tuple[Key, ...]:
        """Current first."""
        return (self.current, *([self.upcoming] if self.upcoming else []), *self.retired)

    @property
    def algorithm(self) -> Algorithm:
        """The one algorithm of the ring."""
        return self.current.algorithm

    def find(self, kid: str) -> Key | None:
        """The key of that id."""
        return next((key for key in self.keys if key.kid == kid), None)

    def jwks(self) -> dict[str, Any]:
        """The JWKS document: every public half. Empty for HS256, a secret is never published."""
        return {"keys": [jwk for key in self.keys if (jwk := key.public_jwk()) is not None]}

    def rotated(self, upcoming: Key | None = None, *, keep: int = 1) -> KeyRing:
        """The ring after a rotation: the upcoming key signs, the current one only verifies, older ones go."""
        if self.upcoming is None:
            raise KeyRefusedError("nothing to rotate to: publish an upcoming key first")
        retired = (Key(self.current.kid, self.current.algorithm, self.current.verifies_with), *self.retired)
        return KeyRing(current=self.upcoming, upcoming=upcoming, retired=retired[:keep])


def thumbprint(key: PublicKey) -> str:
    """The JWK thumbprint of RFC 7638: the same for the same key, everywhere."""
    names = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
    jwk = _jwk(key)
    members = {name: jwk[name] for name in names[jwk["kty"]]}
    digest = hashlib.sha256(json.dumps(members, separators=(",", ":"), sort_keys=True).encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _jwk(key: PublicKey) -> dict[str, Any]:
    if isinstance(key, RSAPublicKey):
        return dict(RSAAlgorithm.to_jwk(key, as_dict=True))
    if isinstance(key, EllipticCurvePublicKey):
        return dict(ECAlgorithm.to_jwk(key, as_dict=True))
    return dict(OKPAlgorithm.to_jwk(key, as_dict=True))


def _check_fits(key: PublicKey, algorithm: Algorithm) -> None:
    fits = {
        "EdDSA": isinstance(key, Ed25519PublicKey),
        "ES256": isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1),
        "RS256": isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS,
    }
    if not fits.get(algorithm, False):
        wanted = {
            "EdDSA": "an Ed25519 key",
            "ES256": "a P-256 key",
            "RS256": f"an RSA key of at least {MIN_RSA_BITS} bits",
            "HS256": "a shared secret",
        }[algorithm]
        raise KeyRefusedError(f"does not fit {algorithm}: {wanted} is needed")
