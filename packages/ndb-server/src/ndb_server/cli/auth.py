"""``ndb-server auth``: manage the file of credentials."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from ndb_protocol.commands import Role
from ndb_protocol.stdio import OutputError

from ..access.credentials import add_entry, check_name, read_entries, remove_entry

app = App(name="auth", help="Manage the credentials of clients, for a server with --auth-file.")

Name = Annotated[str, Parameter(validator=lambda _, name: check_name(name))]
AuthFile = Annotated[Path, Parameter(name="--auth-file")]

_AGAIN = "A running server reads the file again on SIGHUP."


@app.command(help_epilogue=_AGAIN)
def add(
    name: Name, *, role: Annotated[list[Role], Parameter(negative=())], auth_file: AuthFile
) -> None:
    """Add an entry, and print its new secret, once, as the last word of standard output.

    Args:
        name: Name of the client.
        role: What the client may do: app, kv or admin. Can be given several times.
        auth_file: File of credentials, created if it does not exist.
    """
    made = not auth_file.exists()
    secret = add_entry(auth_file, name, role)
    try:
        print(f"added {name} with the secret {secret}", flush=True)
    except OutputError:
        # Nobody has seen it, and nobody ever will.
        remove_entry(auth_file, name)
        if made and not read_entries(auth_file):
            auth_file.resolve().unlink()
        raise


@app.command(help_epilogue=_AGAIN)
def remove(name: str, *, auth_file: AuthFile) -> None:
    """Remove an entry.

    Args:
        name: Name of the entry.
        auth_file: File of credentials.
    """
    remove_entry(auth_file, name)


@app.command(name="list")
def list_entries(*, auth_file: AuthFile) -> None:
    """Print the names and roles of the entries. The file does not contain secrets.

    Args:
        auth_file: File of credentials.
    """
    for entry in read_entries(auth_file).values():
        print(entry.name, ",".join(role.value for role in entry.roles))
