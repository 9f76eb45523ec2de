"""Parameters with which each command is a proper request."""

from typing import Any

PARAMS: dict[str, dict[str, Any]] = {
    "SH_EXISTS": {"tkns": []},
    "SH_SAVE": {"name": "x"},
    "SH_LOAD": {"name": "x"},
    "KV_SAVE": {"name": "x"},
    "KV_LOAD": {"name": "x"},
    **{f"{prefix}_{name}": {"keys": {}} for prefix in ("SH", "KV") for name in ("SET", "ADD")},
    **{f"{prefix}_CLEAR_SET": {"keys": {}} for prefix in ("SH", "KV")},
    **{f"{prefix}_{name}": {"keys": []} for prefix in ("SH", "KV") for name in ("GET", "CONTAINS")},
    **{f"{prefix}_RMV": {"keys": ["a"]} for prefix in ("SH", "KV")},
    **{f"{prefix}_FIND": {"path": "$", "rsp": "keys"} for prefix in ("SH", "KV")},
    **{f"{prefix}_UPDATE": {"key": "a", "path": "$", "value": 1} for prefix in ("SH", "KV")},
    **{f"{prefix}_ARR_APPEND": {"key": "a", "items": []} for prefix in ("SH", "KV")},
}
