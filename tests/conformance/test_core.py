"""The profile ``core`` takes what a server of NemesisDB 0.7.4 answered, and no other meaning."""

import pytest
from ndb_protocol.conformance.conversation import Conversation, Mismatch
from ndb_protocol.conformance.scenarios import load_core

ANSWERED = {
    "members in the order of the alphabet": (
        '{"SH_COUNT_RSP":{"st":1,"cnt":2}}',
        '{"SH_COUNT_RSP":{"cnt":2,"st":1}}',
    ),
    "numbers in another spelling": (
        '{"KV_GET_RSP":{"st":1,"keys":{"c":{"x":1.50,"a":[1,true]},"a":1}}}',
        '{"KV_GET_RSP":{"keys":{"a":1,"c":{"a":[1,true],"x":1.5}},"st":1}}',
    ),
    "a refusal with members of success, and an empty sentence": (
        '{"SH_COUNT_RSP":{"st":100,"m":{{naming:tkn}}}}',
        '{"SH_COUNT_RSP":{"m":"","st":100,"tkn":null}}',
    ),
    "a refusal without a sentence": (
        '{"KV_UPDATE_RSP":{"st":22,"m":{{naming:key}},"cnt":0}}',
        '{"KV_UPDATE_RSP":{"cnt":0,"st":22}}',
    ),
    "the time left rounded down": (
        '{"SH_INFO_RSP":{"st":1,"tkn":{{tkn1}},"keyCnt":0,"shared":false,"expires":true,"expiry":'
        '{"duration":10,"deleteSession":true,"extendOnSetAdd":false,"extendOnGet":false,'
        '"remaining":10}}}',
        '{"SH_INFO_RSP":{"expires":true,"expiry":{"deleteSession":true,"duration":10,'
        '"extendOnGet":false,"extendOnSetAdd":false,"remaining":9},"keyCnt":0,"shared":false,'
        '"st":1,"tkn":10039790425060380040}}',
    ),
    "a save that counts nothing": (
        '{"SH_SAVE_RSP":{"st":121,"name":"x","sessions":2,"keys":3,"duration":{{any:uint}}}}',
        '{"SH_SAVE_RSP":{"duration":0,"name":"x","st":121}}',
    ),
    "a load that takes no time": (
        '{"SH_LOAD_RSP":{"st":141,"name":"x","sessions":2,"keys":3}}',
        '{"SH_LOAD_RSP":{"keys":3,"name":"x","sessions":2,"st":141}}',
    ),
}

ANOTHER = {
    "another name": ('{"KV_COUNT_RSP":{"st":1,"cnt":0}}', '{"KV_KEYS_RSP":{"st":1,"cnt":0}}'),
    "another status": ('{"KV_COUNT_RSP":{"st":1,"cnt":0}}', '{"KV_COUNT_RSP":{"st":22,"cnt":0}}'),
    "a member missing": ('{"KV_COUNT_RSP":{"st":1,"cnt":0}}', '{"KV_COUNT_RSP":{"st":1}}'),
    "no token": ('{"SH_NEW_RSP":{"st":1,"tkn":{{tkn1}}}}', '{"SH_NEW_RSP":{"st":1,"tkn":"1"}}'),
    "true for 1": ('{"R":{"st":1,"keys":{"a":1}}}', '{"R":{"keys":{"a":true},"st":1}}'),
    "another number": ('{"R":{"st":1,"keys":{"a":1}}}', '{"R":{"keys":{"a":2},"st":1}}'),
    "a key too many": ('{"R":{"st":1,"keys":{"a":1}}}', '{"R":{"keys":{"a":1,"b":1},"st":1}}'),
    "another order": ('{"R":{"st":1,"contains":["b","a"]}}', '{"R":{"contains":["a","b"],"st":1}}'),
    "an element too many": ('{"R":{"st":1,"exist":[]}}', '{"R":{"exist":[null],"st":1}}'),
    "no reply": ('{"R":{"st":1}}', "[]"),
}


@pytest.mark.parametrize(("expect", "reply"), ANSWERED.values(), ids=ANSWERED)
def test_the_core_takes_what_nemesisdb_answers(expect: str, reply: str) -> None:
    Conversation(load_core().not_compared).check(expect, reply)
    with pytest.raises(Mismatch):
        Conversation().check(expect, reply)


@pytest.mark.parametrize(("expect", "reply"), ANOTHER.values(), ids=ANOTHER)
def test_the_core_does_not_take_what_means_something_else(expect: str, reply: str) -> None:
    with pytest.raises(Mismatch):
        Conversation(load_core().not_compared).check(expect, reply)
