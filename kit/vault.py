"""Keyed digests and sealed text: phones and private keys are compared and kept without lying open in the database."""

import hashlib
import hmac
from functools import lru_cache

from joserfc import jwe
from joserfc.jwk import OctKey


class Vault:
    """What one secret can do; different uses get keys of their own, derived from it by HMAC."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self._sealing = OctKey.import_key(self._derive(b"seal"))

    def _derive(self, use: bytes) -> bytes:
        return hmac.digest(self._secret, use, hashlib.sha256)

    def digest(self, use: str, value: str) -> str:
        """HMAC-SHA256 (RFC 2104) of `value` in hex: equal values compare, nothing else is learned."""
        return hmac.digest(self._derive(use.encode()), value.encode(), hashlib.sha256).hex()

    def seal(self, value: str) -> str:
        """`value` encrypted: compact JWE (RFC 7516), direct key, AES-256-GCM."""
        return jwe.encrypt_compact({"alg": "dir", "enc": "A256GCM"}, value.encode(), self._sealing)

    def unseal(self, sealed: str) -> str:
        """What `seal` was given; JoseError when the secret is another one."""
        plaintext = jwe.decrypt_compact(sealed, self._sealing).plaintext
        return (plaintext or b"").decode()


@lru_cache(maxsize=8)
def open_vault(secret: str) -> Vault:
    """The vault of this secret."""
    return Vault(secret)
