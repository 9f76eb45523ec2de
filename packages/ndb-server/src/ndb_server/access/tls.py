"""TLS: the server's certificate, and the CA certificates for clients."""

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from .x509 import Validity, validities

logger = logging.getLogger("ndb_server.tls")

WARN_BEFORE = timedelta(days=14)
"""How long before the expiry of a certificate the server warns."""

_DATE = "%Y-%m-%d %H:%M UTC"


class TlsError(Exception):
    """The certificates can't be used; says which and why."""


class Certificate(NamedTuple):
    """A certificate of a file.

    Attributes:
        kind: what it is for: ``server``, ``chain`` or ``client_ca``.
        number: its place in the file, from 1 on.
        file: the file.
        validity: when it is valid.
    """

    kind: str
    number: int
    file: Path
    validity: Validity

    def trouble(self, now: datetime) -> str | None:
        """Return what is wrong with its time, if anything is or soon will be."""
        begin, end = self.validity
        if now < begin:
            said = (
                f"is not valid before {begin:{_DATE}}; check the clock, or use another certificate"
            )
        elif end <= now:
            said = f"expired on {end:{_DATE}}; renew it, and send SIGHUP"
        elif end - now <= WARN_BEFORE:
            said = f"expires on {end:{_DATE}}; renew it, and send SIGHUP"
        else:
            return None
        return f"certificate {self.number} in {self.file} {said}"


@dataclass(frozen=True, slots=True)
class Certificates:
    """Where the certificates are, as PEM files.

    Attributes:
        chain: the server's own, followed by those between it and its root.
        key: the private key of the first one.
        client_ca: those by which clients' certificates have to be signed; None asks for none.
    """

    chain: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Return what TLS connections are accepted with.

        Raises:
            TlsError: a file can't be used.
        """
        # TLS 1.2 and newer, with the ciphers that Python and OpenSSL hold for safe.
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # WebSocket is HTTP/1.1 (RFC 6455, section 4.1).
        context.set_alpn_protocols(["http/1.1"])
        self._load(context)
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def reload(self, context: ssl.SSLContext) -> None:
        """Read the files again, for the connections that `context` will accept.

        Connections there are stay. An authority of clients that was known stays known until the
        server is started anew.

        Raises:
            TlsError: a file can't be used; the certificates stay as they were.
        """
        # What can't be used is found out on another one.
        self.context()
        self._load(context)

    def all(self) -> list[Certificate]:
        """Return every certificate of the files; log in which of them they can't be read."""
        found: list[Certificate] = []
        for file, first, others in (
            (self.chain, "server", "chain"),
            (self.client_ca, "client_ca", "client_ca"),
        ):
            if file is None:
                continue
            try:
                for number, validity in enumerate(validities(file.read_bytes()), 1):
                    kind = first if number == 1 else others
                    found.append(Certificate(kind, number, file, validity))
            except (OSError, ValueError) as error:
                # They may be all right still: OpenSSL has the last word.
                logger.warning(
                    "cannot read when the certificates in %s expire: %s", file, _reason(error)
                )
        return found

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            # Without an answer, OpenSSL asks for the password of a key on the terminal.
            context.load_cert_chain(self.chain, self.key, password=lambda: b"")
        except (OSError, ValueError) as error:
            raise TlsError(
                f"cannot use certificate {self.chain} with key {self.key}: {_reason(error)}; both "
                "must be PEM files, and the key must have no password"
            ) from error
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except (OSError, ValueError) as error:
                raise TlsError(
                    f"cannot use client CA {self.client_ca}: {_reason(error)}; "
                    "it must be a PEM file"
                ) from error


class CertificateExpiry:
    """Knows when the certificates in use expire, and warns in time."""

    def __init__(self) -> None:
        self._certificates: list[Certificate] = []

    def read(self, certificates: Certificates) -> None:
        """Take notice of certificates that are used from now on, and warn of them."""
        self._certificates = certificates.all()
        self.warn()

    def warn(self) -> None:
        """Log which certificates are not valid, or not for much longer."""
        now = datetime.now(UTC)
        for certificate in self._certificates:
            if trouble := certificate.trouble(now):
                logger.warning(trouble)

    def ends(self) -> dict[str, float]:
        """Return when the first certificate of each kind ends, in seconds since the epoch."""
        found: dict[str, float] = {}
        for one in self._certificates:
            end = one.validity.end.timestamp()
            found[one.kind] = min(end, found.get(one.kind, end))
        return found


def report_failed_handshakes(context: ssl.SSLContext, refused: Callable[[str], None]) -> None:
    """Have `refused` be told of each handshake of `context` that fails, with the reason.

    Event loops tell nobody: to them a client that can't come in was never there.
    """

    class Reporting(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLSyscallError):
                raise
            except ssl.SSLError as error:
                refused(str(_reason(error)))
                raise

    context.sslobject_class = Reporting


def _reason(error: Exception) -> object:
    if isinstance(error, ssl.SSLError):
        return error.reason or "it can't be decoded"
    return error.strerror if isinstance(error, OSError) else error
