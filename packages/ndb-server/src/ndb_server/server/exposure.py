"""Safe defaults: the server isn't exposed to a network by mistake."""

import os
import sys

FIXED_HASHES = (
    "PYTHONHASHSEED is set to a number: anyone who knows it can send keys whose hashes collide, "
    "which makes the server very slow; unset it"
)

WAYS_ON = (
    "give --auth-file FILE with --tls-cert FILE and --tls-key FILE, or --behind-proxy if a "
    "proxy terminates TLS, or --insecure to accept anyone who can reach it"
)


def check_exposure(
    host: str, *, loopback: bool, guarded: bool, encrypted: bool, waived: bool
) -> str | None:
    """Return why not to listen on `host`; None if that is all right.

    Args:
        host: the address, as it was given.
        loopback: only this machine can reach it.
        guarded: clients have to show credentials or certificates.
        encrypted: connections are encrypted.
        waived: it was said to be all right.
    """
    if loopback or waived or (guarded and encrypted):
        return None
    missing = [what for what, there in (("credentials", guarded), ("TLS", encrypted)) if not there]
    return f"refusing to listen on {host} without {' and '.join(missing)}: {WAYS_ON}"


def has_fixed_hashes() -> bool:
    """Tell whether the hashes of strings are the same in each process."""
    if not sys.flags.hash_randomization:
        return True
    # The flag says this of the seed 0 alone.
    seed = "" if sys.flags.ignore_environment else os.environ.get("PYTHONHASHSEED", "")
    return seed not in ("", "random")
