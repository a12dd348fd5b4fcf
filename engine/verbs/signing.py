"""ed25519 keys and signatures, by the extra `sign`. Key files are those of `ssh-keygen` and of `openssl`.

A file may hold several: PEM blocks (private, as PKCS#8 or of OpenSSH; public), lines `ssh-ed25519 ...` as in
authorized_keys, and lines `ed25519:...` as an approval has its key. Blank lines and # comments are left out.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from engine.errors import ConfigError

_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_OWN: Final = "ed25519:"
Key = Ed25519PrivateKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs with one private key, which is never shown."""

    _private: Ed25519PrivateKey = field(repr=False)

    @property
    def key(self) -> str:
        """The public key, as an approval has it."""
        return _written(self._private.public_key())

    def sign(self, content: bytes) -> str:
        """In base64."""
        return b64encode(self._private.sign(content)).decode()


@dataclass(frozen=True, slots=True)
class Trusted:
    """The public keys that are trusted, as an approval has them."""

    keys: frozenset[str]

    def doubts(self, key: object, content: bytes, signature: object) -> str | None:
        """Why this signature is none of theirs; None: it is."""
        if not isinstance(key, str) or not isinstance(signature, str):
            return "is not signed"
        if key not in self.keys:
            return "is signed with a key that is not trusted here"
        try:
            _public(key).verify(b64decode(signature, validate=True), content)
        except (InvalidSignature, ValueError):
            return "was changed since it was signed"
        return None


def read_signer(path: Path) -> Signer:
    """The one private key of a file. Raises ConfigError."""
    private = [key for key in _keys(path) if isinstance(key, Ed25519PrivateKey)]
    if len(private) != 1:
        raise ConfigError(f"{path}: has {len(private)} private keys: to approve, name the file of your own one")
    return Signer(private[0])


def read_trusted(path: Path) -> Trusted:
    """Every key of a file; of a private one its public half. Raises ConfigError, also when it has none."""
    found = [key.public_key() if isinstance(key, Ed25519PrivateKey) else key for key in _keys(path)]
    if not found:
        raise ConfigError(f"{path}: has no key")
    return Trusted(frozenset(map(_written, found)))


def _keys(path: Path) -> Iterator[Key]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: the key file cannot be read: {error.strerror}") from None
    for number, block in enumerate(_BLOCK.finditer(data), 1):
        yield _checked(_of_block(block), f"{path}: key {number}")
    for number, line in enumerate(_BLOCK.sub(lambda block: b"\n" * block[0].count(b"\n"), data).splitlines(), 1):
        if line.strip() and not line.startswith(b"#"):
            yield _checked(_of_line(line.strip()), f"{path}:{number}")


def _checked(key: object, where: str) -> Key:
    if isinstance(key, Key):
        return key
    raise ConfigError(f"{where}: is {key if isinstance(key, str) else 'a key of another kind; it must be ed25519'}")


def _of_block(block: re.Match[bytes]) -> object:
    """The key, or what is wrong with it; an error's own text might hold some of it."""
    try:
        match block[1]:
            case b"PRIVATE KEY":
                return serialization.load_pem_private_key(block[0], None)
            case b"OPENSSH PRIVATE KEY":
                return serialization.load_ssh_private_key(block[0], None)
            case b"PUBLIC KEY":
                return serialization.load_pem_public_key(block[0])
    except TypeError:
        return "encrypted, and nobody is asked for its passphrase: use a key without one"
    except (ValueError, UnsupportedAlgorithm):
        return "damaged"
    if b"ENCRYPTED" in block[1]:
        return "encrypted, and nobody is asked for its passphrase: use a key without one"
    return "a key of another kind; it must be ed25519"


def _of_line(line: bytes) -> object:
    try:
        if line.startswith(_OWN.encode()):
            return _public(line.decode())
        return serialization.load_ssh_public_key(line)
    except (ValueError, UnsupportedAlgorithm):
        return "no key: it must be ed25519, as a PEM block or a line of authorized_keys"


def _public(written: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(b64decode(written.removeprefix(_OWN), validate=True))


def _written(key: Ed25519PublicKey) -> str:
    return _OWN + b64encode(key.public_bytes_raw()).decode()
