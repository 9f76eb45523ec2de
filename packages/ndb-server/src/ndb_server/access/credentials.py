"""The file of credentials: names, secrets and roles of clients.

One entry is one line of JSON. The file does not contain secrets, only their SHA-256 digests. A
secret has 256 random bits, so an attacker who has the digest can't find the secret by trying, even
though SHA-256 is fast. A slow digest, such as scrypt, is for passwords that people choose.

A secret begins with its `key`. If a client sends no name, its entry is found by the key. The random
bits follow the key.
"""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import msgspec
from msgspec import Struct
from ndb_protocol.commands import Role

from .request_checks import SentCredentials

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class CredentialsError(Exception):
    """A file of credentials can't be used, or not as asked; says why and what to do."""


class Entry(Struct, frozen=True):
    """A name, its roles, and the digest of its secret.

    Attributes:
        name: by which it is added and removed, and sent with HTTP Basic.
        roles: what it may do.
        key: how its secret begins.
        sha256: the digest of its secret, in hexadecimal digits.
    """

    name: str
    roles: tuple[Role, ...]
    key: str
    sha256: str


_decode = msgspec.json.Decoder(Entry).decode
_encode = msgspec.json.Encoder().encode


def digest_of(secret: str) -> str:
    """Return what is kept of `secret`."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Credentials:
    """The entries of a file.

    Args:
        entries: the entries of all clients.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._by_name = {entry.name: entry for entry in entries}
        self._by_key = {entry.key: entry for entry in self._by_name.values()}

    def __contains__(self, entry: Entry) -> bool:
        return self._by_name.get(entry.name) == entry

    def verify(self, sent: SentCredentials) -> Entry | None:
        """Return whose `sent` is; None if nobody's.

        Digests are compared in a time that doesn't depend on where they differ.
        """
        if sent.name is None:
            entry = self._by_key.get(sent.secret.partition(".")[0])
        else:
            entry = self._by_name.get(sent.name)
        digest = digest_of(sent.secret)
        if entry is None or not hmac.compare_digest(entry.sha256, digest):
            return None
        return entry


def read_entries(file: Path) -> dict[str, Entry]:
    """Return the entries of `file` by their names.

    Raises:
        CredentialsError: it can't be read.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise CredentialsError(f"cannot read credentials {file}: {reason}") from error
    entries: dict[str, Entry] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = _decode(line)
            _check(entry)
        except ValueError as error:
            # What stands there is not shown: it may be a secret that somebody has put in.
            reason = "" if isinstance(error, msgspec.MsgspecError) else f": {error}"
            raise CredentialsError(
                f"line {number} of credentials {file} is not an entry{reason}; "
                "add entries with ndb-server auth add"
            ) from None
        if entry.name in entries:
            raise CredentialsError(f"credentials {file} have two entries {entry.name}; remove one")
        entries[entry.name] = entry
    return entries


def _check(entry: Entry) -> None:
    check_name(entry.name)
    if not entry.roles:
        raise ValueError("it has no roles")
    if not _DIGEST.fullmatch(entry.sha256):
        raise ValueError("its sha256 is not 64 hexadecimal digits")


def check_name(name: str) -> None:
    """Refuse a name that no entry can have.

    Raises:
        ValueError: says what a name is.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            "a name has 1 to 64 characters A-Z a-z 0-9 . _ -, and begins with a letter or digit"
        )


def write_entries(file: Path, entries: Mapping[str, Entry]) -> None:
    """Put `entries` in place of what `file` holds, at once and for its owner's eyes alone.

    Raises:
        CredentialsError: it can't be written; it is as it was.
    """
    text = b"".join(_encode(entry) + b"\n" for entry in entries.values())
    try:
        # Whoever it is a link to is replaced, not the link.
        target = file.resolve()
        # Made with mode 0600.
        with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as new:
            try:
                new.write(text)
                new.flush()
                os.fsync(new.fileno())
                Path(new.name).replace(target)
            except OSError:
                with suppress(OSError):
                    Path(new.name).unlink()
                raise
    except OSError as error:
        raise CredentialsError(f"cannot write credentials {file}: {error.strerror}") from error


def add_entry(file: Path, name: str, roles: Iterable[Role]) -> str:
    """Add an entry to `file`, which is made if it does not exist; return its new secret.

    Raises:
        CredentialsError: there is such an entry, or the file can't be used.
        ValueError: `name` is none.
    """
    check_name(name)
    entries = read_entries(file) if file.exists() else {}
    if name in entries:
        raise CredentialsError(
            f"credentials {file} already have an entry {name}; remove it first, or choose another "
            "name"
        )
    key = secrets.token_hex(6)
    secret = f"{key}.{secrets.token_urlsafe(32)}"
    entries[name] = Entry(name, tuple(dict.fromkeys(roles)), key, digest_of(secret))
    write_entries(file, entries)
    return secret


def remove_entry(file: Path, name: str) -> None:
    """Remove an entry from `file`.

    Raises:
        CredentialsError: there is none of that name, or the file can't be used.
    """
    entries = read_entries(file)
    if entries.pop(name, None) is None:
        raise CredentialsError(f"credentials {file} have no entry {name}")
    write_entries(file, entries)
