"""A client may ask by itself what the server can do, before anything else, or never."""

import shlex
import sys

import pytest
from ndb_protocol.conformance import clients
from ndb_protocol.conformance.clients import check_client
from ndb_protocol.conformance.report import Outcome
from ndb_protocol.conformance.scenarios import (
    ClientScenario,
    ClientStep,
    load_client_scenarios,
    matches,
)

from tests.support.waiting import BOUND

SERVED = [
    scenario
    for scenario in load_client_scenarios()
    if matches(
        scenario.id,
        [
            "client/KV_COUNT is sent*",
            "client/SV_INFO is sent*",
            "client/A server that tells no protocol*",
            "client/Features, limits*",
            "client/A server that refuses*",
            "client/Closing twice*",
        ],
    )
]
COUNT = ClientStep(
    call="KV_COUNT",
    request='{"KV_COUNT":{}}',
    reply='{"KV_COUNT_RSP":{"st":1,"cnt":3}}',
    result={"cnt": 3},
)


def client(when: str) -> str:
    return f"{shlex.quote(sys.executable)} -m tests.conformance.asking_client {when}"


async def why(when: str, *steps: ClientStep) -> str:
    scenario = ClientScenario(name="x", section="x", steps=steps)
    [result] = await check_client(client(when), [scenario], BOUND)
    assert result.outcome is Outcome.FAILED
    return result.detail


@pytest.mark.parametrize("when", ["never", "to-open", "and-does-not-wait", "for-the-first-request"])
async def test_a_client_may_ask_what_the_server_can_do_or_not(when: str) -> None:
    assert len(SERVED) == 6
    results = await check_client(client(when), SERVED, BOUND)
    assert [result.detail for result in results] == [""] * 6
    assert {result.outcome for result in results} == {Outcome.PASSED}


@pytest.mark.parametrize(
    ("when", "sent"), [("to-open-twice", "SV_INFO"), ("something-else", "KV_CLEAR")]
)
async def test_a_client_that_asks_for_more_by_itself_is_told_what_it_sent(
    when: str, sent: str
) -> None:
    assert f'opening: the client sent an unexpected message: {{"{sent}":{{}}}}' in await why(
        when, COUNT
    )


async def test_a_client_that_asks_later_is_told_that_this_is_another_request() -> None:
    found = await why("for-the-second-request", COUNT, COUNT)
    assert "step 2 of 2: another request" in found


async def test_a_client_that_connects_again_by_itself_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hear_until_it_connects(self: clients._Run, _: ClientStep) -> None:
        self._arrived.put_nowait(await self._arrived.get())
        raise TimeoutError

    monkeypatch.setattr(clients._Run, "_hear", hear_until_it_connects)
    lost = ClientStep(call="KV_COUNT", error="lost")
    found = await why("after-reconnecting", ClientStep(drop=True), lost)
    assert f"step 2 of 2: nothing within {BOUND} s, and the client has connected again" in found
