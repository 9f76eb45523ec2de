"""Who may come in, with which secret and for what: the file of credentials.

One entry is one line of JSON. Secrets are not in it, only what scrypt (RFC 7914) makes of them.
They are random and long, so nobody guesses one; scrypt is for the day on which the file is seen.

A secret begins with a part that is its `key`, by which its entry is found where it comes without a
name, and has 256 random bits behind that.
"""

import hashlib
import hmac
import os
import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import msgspec
from msgspec import Struct
from ndb_protocol.commands import Role

from .handshake import Offer

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"\$scrypt\$ln=([0-9]{1,2}),r=8,p=1\$([A-Za-z0-9+/]{22})\$([A-Za-z0-9+/]{43})")
_LOG_N = 14
_LOG_N_MOST = 18


class CredentialsError(Exception):
    """A file of credentials can't be used, or not as asked; says why and what to do."""


class Entry(Struct, frozen=True):
    """A name, what it may do, and what tells whether a secret is its own.

    Attributes:
        name: by which it is added and removed, and sent with HTTP Basic.
        roles: what it may do.
        key: how its secret begins.
        hash: what scrypt makes of the secret, with its parameters, in the form of PHC strings.
    """

    name: str
    roles: tuple[Role, ...]
    key: str
    hash: str


_decode = msgspec.json.Decoder(Entry).decode
_encode = msgspec.json.Encoder().encode


def _scrypt(secret: str, salt: bytes, log_n: int) -> bytes:
    memory = 128 * 8 * 2**log_n
    return hashlib.scrypt(
        secret.encode(), salt=salt, n=2**log_n, r=8, p=1, maxmem=2 * memory, dklen=32
    )


def _text(data: bytes) -> str:
    return b64encode(data).decode().rstrip("=")


def hashed(secret: str) -> str:
    """Return what is kept of `secret`."""
    salt = secrets.token_bytes(16)
    digest = _scrypt(secret, salt, _LOG_N)
    return f"$scrypt$ln={_LOG_N},r=8,p=1${_text(salt)}${_text(digest)}"


def is_secret_of(kept: str, secret: str) -> bool:
    """Tell whether `kept` was made of `secret`. It takes some 40 ms, whatever the answer."""
    found = _HASH.fullmatch(kept)
    assert found
    salt, digest = (b64decode(part + "==="[: -len(part) % 4]) for part in found.groups()[1:])
    return hmac.compare_digest(_scrypt(secret, salt, int(found[1])), digest)


_NOBODY = Entry("", (), "", f"$scrypt$ln={_LOG_N},r=8,p=1${'A' * 22}${'A' * 43}")
"""No secret is known that is its own."""


class Credentials:
    """The entries of a file, and which secrets were right before.

    Args:
        entries: who may come in.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = {entry.name: entry for entry in entries}
        self._by_key = {entry.key: entry for entry in self._entries.values()}
        # What a secret that was right is recognized by at once, by the name of its entry.
        self._seal_key = secrets.token_bytes(32)
        self._seals: dict[str, bytes] = {}

    def __contains__(self, entry: Entry) -> bool:
        return self._entries.get(entry.name) == entry

    def _entry(self, offer: Offer) -> Entry | None:
        if offer.name is None:
            return self._by_key.get(offer.secret.partition(".")[0])
        return self._entries.get(offer.name)

    def _seal(self, offer: Offer) -> bytes:
        return hmac.digest(self._seal_key, offer.secret.encode(), "sha256")

    def known(self, offer: Offer) -> Entry | None:
        """Return whose `offer` is, if the same secret was right before; takes microseconds."""
        entry = self._entry(offer)
        if entry is None:
            return None
        seal = self._seals.get(entry.name, b"")
        return entry if hmac.compare_digest(seal, self._seal(offer)) else None

    def verify(self, offer: Offer) -> Entry | None:
        """Return whose `offer` is, None if nobody's; takes as long either way.

        May run in a thread.
        """
        entry = self._entry(offer) or _NOBODY
        if not is_secret_of(entry.hash, offer.secret) or entry is _NOBODY:
            return None
        self._seals[entry.name] = self._seal(offer)
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
                f"line {number} of credentials {file} is no entry{reason}; "
                "add entries with ndb-server auth add"
            ) from None
        if entry.name in entries:
            raise CredentialsError(f"credentials {file} have two entries {entry.name}; remove one")
        entries[entry.name] = entry
    return entries


def _check(entry: Entry) -> None:
    check_name(entry.name)
    if not entry.roles:
        raise ValueError("it has no role")
    found = _HASH.fullmatch(entry.hash)
    if found is None or not 1 <= int(found[1]) <= _LOG_N_MOST:
        raise ValueError("its hash is none that is known here")


def check_name(name: str) -> None:
    """Refuse a name that no entry can have.

    Raises:
        ValueError: says what a name is.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("a name is 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit")


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
            f"credentials {file} have an entry {name}; remove it first, or choose another name"
        )
    key = secrets.token_hex(6)
    secret = f"{key}.{secrets.token_urlsafe(32)}"
    entries[name] = Entry(name, tuple(dict.fromkeys(roles)), key, hashed(secret))
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
