"""``python -m ndb_protocol``: prints the protocol in machine-readable form."""

import argparse
import json
import sys
from collections.abc import Sequence

from .asyncapi import asyncapi
from .schema import json_schema
from .stdio import OutputError, all_output, open_missing_descriptors

DOCUMENTS = {"schema": json_schema, "asyncapi": asyncapi}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the document that `arguments` ask for, those of the process if None."""
    parser = argparse.ArgumentParser(
        prog="python -m ndb_protocol",
        description="Print a machine-readable description of the wire protocol, as JSON.",
    )
    parser.add_argument(
        "document",
        choices=DOCUMENTS,
        help="schema: JSON Schema 2020-12 of every message; asyncapi: AsyncAPI 3 document",
    )
    open_missing_descriptors()
    try:
        with all_output():
            document = DOCUMENTS[parser.parse_args(arguments).document]()
            sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    except OutputError as error:
        parser.exit(1, f"ndb_protocol: {error}\n")


if __name__ == "__main__":
    main()
