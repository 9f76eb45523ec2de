"""Check an earlier version with today's: its client with today's server, and the reverse.

Usage: python -m tests.compat EARLIER

EARLIER is the Python of an environment that has an earlier version of the three distributions.
Today's is what this Python has.
"""

import sys
from pathlib import Path

from tests.compat.pairs import Failed, check


def main() -> None:
    # Not resolved: what is behind the link is a Python without the environment.
    earlier, today = Path(sys.argv[1]).absolute(), Path(sys.executable)
    wrong = []
    for what, client, server in (
        ("the earlier client with today's server", earlier, today),
        ("today's client with the earlier server", today, earlier),
    ):
        try:
            print(f"{what}: {check(client, server)} commands, all well", flush=True)
        except Failed as error:
            wrong.append(f"{what} failed:\n{error}")
    sys.exit("\n".join(wrong) or None)


if __name__ == "__main__":
    main()
