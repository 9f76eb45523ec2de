"""The door: what it says of secrets that it can't judge."""

from pathlib import Path
from typing import NoReturn

import pytest
from ndb_protocol.commands import Role
from ndb_server.admission import Door, Policy, Visit
from ndb_server.credentials import Credentials, Entry, add_entry, read_entries
from ndb_server.handshake import Offer, Refusal
from ndb_server.limits import Limits
from websockets.datastructures import Headers
from websockets.http11 import Request


class Failing(Credentials):
    """Credentials that can't be checked, as where memory is short, for as long as they fail."""

    failing = True

    def verify(self, offer: Offer) -> Entry | None:
        if self.failing:
            raise MemoryError
        return super().verify(offer)


async def judged(visit: Visit, secret: str) -> Refusal | frozenset[Role]:
    headers = Headers({"Host": "localhost", "Authorization": f"Bearer {secret}"})
    found = visit.identify(Request("/", headers))
    return found if isinstance(found, Refusal | frozenset) else await found


async def test_a_trouble_with_credentials_is_told_again_once_they_were_checked_between(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "credentials"
    secret = add_entry(file, "web", [Role.APP])
    credentials = Failing(read_entries(file).values())

    def nobody(*_: object) -> NoReturn:
        raise AssertionError

    door = Door(Policy(), Limits(), nobody, credentials)
    try:
        visit = door.arrive("127.0.0.1")
        assert visit is not None
        for _ in range(2):
            assert isinstance(await judged(visit, secret), Refusal)
        assert caplog.text.count("credentials can't be checked") == 1
        credentials.failing = False
        assert await judged(visit, secret) == frozenset({Role.APP})
        credentials.failing = True
        assert isinstance(await judged(visit, "another"), Refusal)
        assert caplog.text.count("credentials can't be checked") == 2
    finally:
        door.close()
