"""How long certificates are valid, read from PEM files.

Python gives this only for certificates that it has verified, and the server's own is not one of
them. The dates are at the beginning of a certificate (RFC 5280, section 4.1), in DER (X.690).
"""

import re
import ssl
from datetime import UTC, datetime
from typing import NamedTuple

# OpenSSL knows three names for it. Behind a trusted one stands what it is trusted for.
_PEM = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.+?)-----END (?:X509 |TRUSTED )?CERTIFICATE",
    re.DOTALL,
)

_SEQUENCE = 0x30
_VERSION = 0xA0
_UTC_TIME = 0x17
_GENERALIZED_TIME = 0x18


class Validity(NamedTuple):
    """From when until when a certificate is valid, in UTC."""

    begin: datetime
    end: datetime


def validities(pem: bytes) -> list[Validity]:
    """Return when each certificate in a PEM file is valid, in their order.

    Raises:
        ValueError: one can't be read.
    """
    found: list[Validity] = []
    for [text] in (match.groups() for match in _PEM.finditer(pem)):
        whole = f"{ssl.PEM_HEADER}{text.decode('ascii')}{ssl.PEM_FOOTER}"
        found.append(_validity(ssl.PEM_cert_to_DER_cert(whole)))
    return found


def _validity(der: bytes) -> Validity:
    try:
        _, certificate, _ = _element(der, _SEQUENCE)
        _, signed, _ = _element(certificate, _SEQUENCE)
        if signed[0] == _VERSION:
            _, _, signed = _element(signed)
        # The serial number, the algorithm of the signature, the issuer.
        for _ in range(3):
            _, _, signed = _element(signed)
        _, validity, _ = _element(signed, _SEQUENCE)
        kind, begin, validity = _element(validity)
        begins = _time(kind, begin)
        kind, end, _ = _element(validity)
        return Validity(begins, _time(kind, end))
    except IndexError:
        raise ValueError("a certificate ends too soon") from None


def _element(der: bytes, expected: int | None = None) -> tuple[int, bytes, bytes]:
    """Return the tag and the content of the first element, and what is behind it."""
    tag, size, start = der[0], der[1], 2
    if size >= 0x80:
        start += size - 0x80
        size = int.from_bytes(der[2:start])
    if expected not in (None, tag):
        raise ValueError(f"a certificate has {tag:#x} where {expected:#x} should be")
    if start + size > len(der):
        raise IndexError
    return tag, der[start : start + size], der[start + size :]


def _time(kind: int, content: bytes) -> datetime:
    text = content.decode("ascii")
    if kind == _UTC_TIME:
        # RFC 5280, section 4.1.2.5.1.
        text = ("19" if text >= "50" else "20") + text
    elif kind != _GENERALIZED_TIME:
        raise ValueError(f"a certificate has {kind:#x} where a time should be")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
