"""What a server says while changes can't be made durable, and all that it has."""

import json
from typing import Any

from tests.support.raw_client import Wire

REFUSED = "changes can't be made durable and are refused"
AGAIN = "changes are durable again"


def everything(wire: Wire, tokens: list[int]) -> list[Any]:
    """Return all there is, but for how much time is left, and the order of keys.

    A key that was removed stands at the end when that is undone.
    """
    found: list[Any] = [
        wire.request("SH_INFO_ALL"),
        wire.request("SH_EXISTS", tkns=tokens),
        json.dumps(wire.request("KV_FIND", path="$", rsp="kv"), sort_keys=True),
    ]
    for token in tokens:
        info = wire.request("SH_INFO", tkn=token)
        info.get("expiry", {}).pop("remaining", None)
        keys = wire.request("SH_FIND", tkn=token, path="$", rsp="kv")
        found += [info, json.dumps(keys, sort_keys=True)]
    return found
