"""How deep the arrays and objects of a JSON text nest, without reading it as JSON."""

import re
from itertools import accumulate

# A string, with its escapes; possessive, so that no text makes it try twice.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = [1 if byte in b"[{" else -1 for byte in range(256)]


def nests_deeper(text: bytes, depth: int) -> bool:
    """Tell whether arrays and objects of `text` nest deeper than `depth`.

    Of what is not JSON, it may tell either.
    """
    if text.count(b"[") + text.count(b"{") <= depth:
        return False
    brackets = _STRING.sub(b"", text).translate(None, _ALL_BUT_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > depth
