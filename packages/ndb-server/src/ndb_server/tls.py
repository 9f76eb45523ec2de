"""TLS: the server's certificate, and those it asks its clients for."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class TlsError(Exception):
    """The certificates can't be used; says which and why."""


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

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            # Without an answer, OpenSSL asks for the password of a key on the terminal.
            context.load_cert_chain(self.chain, self.key, password=lambda: b"")
        except (OSError, ValueError) as error:
            raise TlsError(
                f"cannot use certificate {self.chain} with key {self.key}: {_reason(error)}; both "
                "must be PEM files, the key without a password"
            ) from error
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except (OSError, ValueError) as error:
                raise TlsError(
                    f"cannot use client CA {self.client_ca}: {_reason(error)}; "
                    "it must be a PEM file"
                ) from error


def report_refusals(context: ssl.SSLContext, refused: Callable[[str], None]) -> None:
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
