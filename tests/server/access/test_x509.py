"""How long certificates are valid, as it stands in PEM files."""

import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
import trustme
from ndb_server.access.x509 import Validity, validities

BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def pem(begin: datetime, end: datetime, key: trustme.KeyType = trustme.KeyType.ECDSA) -> bytes:
    issued = trustme.CA(key_type=key).issue_cert(
        "localhost", not_before=begin, not_after=end, key_type=key
    )
    return issued.cert_chain_pems[0].bytes()


@pytest.mark.parametrize("key", trustme.KeyType)
@pytest.mark.parametrize(
    "end",
    [
        BEGIN + timedelta(days=90),
        # From 2050 on times are written in another way.
        datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2050, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    ],
)
def test_a_certificate_says_when_it_is_valid(end: datetime, key: trustme.KeyType) -> None:
    assert validities(pem(BEGIN, end, key)) == [Validity(BEGIN, end)]


def test_a_time_of_the_last_century_is_one() -> None:
    begin = datetime(1950, 1, 1, tzinfo=UTC)
    assert validities(pem(begin, BEGIN)) == [Validity(begin, BEGIN)]


def test_all_certificates_of_a_file_are_read_and_nothing_else() -> None:
    ends = [BEGIN + timedelta(days=days) for days in (1, 2)]
    key = trustme.CA().issue_cert("localhost").private_key_pem.bytes()
    first, second = (pem(BEGIN, end) for end in ends)
    # OpenSSL reads these names too.
    second = second.replace(b" CERTIFICATE-", b" X509 CERTIFICATE-")
    found = validities(b"subject=CN=localhost\n" + first + key + second)
    assert [one.end for one in found] == ends
    assert validities(key) == []


def test_what_is_no_certificate_is_a_value_error() -> None:
    der = ssl.PEM_cert_to_DER_cert(pem(BEGIN, BEGIN + timedelta(days=1)).decode())
    random = Random(1)
    for size in range(150):
        with pytest.raises(ValueError, match="a certificate"):
            validities(ssl.DER_cert_to_PEM_cert(der[:size]).encode())
        # Nothing else comes of it, whatever it is.
        broken = bytearray(der)
        broken[random.randrange(150)] ^= 1 << random.randrange(8)
        with suppress(ValueError):
            validities(ssl.DER_cert_to_PEM_cert(bytes(broken)).encode())
