"""Variables of the environment that begin like the server's and are not meant for it."""

import re
import subprocess
import sys

import pytest
from ndb_server.cli import main as cli
from ndb_server.cli.environment import remove_unknown_variables

from tests.support.server_process import StartServer
from tests.support.waiting import BOUND

OPTIONS = cli._variables()


def of_a_service(name: str) -> dict[str, str]:
    """Return what Kubernetes tells each container of a Service with two ports."""
    variables = {f"{name}_SERVICE_HOST": "10.96.0.10", f"{name}_PORT": "tcp://10.96.0.10:1987"}
    variables |= {f"{name}_SERVICE_PORT": "1987", f"{name}_SERVICE_PORT_WEB_SOCKET": "1987"}
    for port, protocol in (("1987", "tcp"), ("53", "udp"), ("9", "sctp")):
        prefix = f"{name}_PORT_{port}_{protocol.upper()}"
        variables |= {
            prefix: f"{protocol}://10.96.0.10:{port}",
            f"{prefix}_PROTO": protocol,
            f"{prefix}_PORT": port,
            f"{prefix}_ADDR": "10.96.0.10",
        }
    return variables


def of_a_link(alias: str) -> dict[str, str]:
    """Return what Docker tells a container that is linked to another one."""
    prefix = f"{alias}_PORT_1987_TCP"
    return {
        f"{alias}_NAME": "/shop/ndb",
        f"{alias}_PORT": "tcp://172.17.0.5:1987",
        prefix: "tcp://172.17.0.5:1987",
        f"{prefix}_PROTO": "tcp",
        f"{prefix}_PORT_START": "1987",
        f"{prefix}_PORT_END": "1990",
        f"{alias}_ENV_NDB_DATA_DIR": "/data",
        f"{alias}_ENV_PATH": "/bin",
    }


def test_what_is_made_for_a_service_or_a_link_is_set_aside() -> None:
    # One called ndb, and others whose names are like any option.
    for name in ("NDB", *OPTIONS):
        for made in (of_a_service(name), of_a_link(name)):
            environment = {**made, "PATH": "/bin", "NDB_LOOP": "asyncio"}
            found = remove_unknown_variables(environment, OPTIONS)
            assert environment == {"PATH": "/bin", "NDB_LOOP": "asyncio"}
            assert set(found.of_services) == set(made)
            assert set(found.hidden) == set(made) & OPTIONS
            assert found.unknown == []


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("NDB_PROT", "NDB_PORT"),
        ("NDB_DATADIR", "NDB_DATA_DIR"),
        ("NDB_ALLOW_HOSTS", "NDB_ALLOW_HOST"),
        ("NDB_TLS_CERTS", "NDB_TLS_CERT"),
        ("NDB_CONFIGURATION", "NDB_CONFIG"),
        ("NDB_FAULTS", None),
        ("NDB_", None),
    ],
)
def test_a_variable_that_is_no_option_is_named_with_the_one_that_is_near(
    name: str, near: str | None
) -> None:
    environment = {name: "1"}
    [line] = remove_unknown_variables(environment, OPTIONS).unknown
    meant = "" if near is None else f"; did you mean {near}?"
    assert line == f"the variable {name} has no effect: it is not an option{meant}"
    assert environment == {name: "1"}


def test_options_are_left_alone() -> None:
    environment = dict.fromkeys(OPTIONS, "1")
    assert remove_unknown_variables(environment, OPTIONS) == ([], [], [])
    assert set(environment) == OPTIONS
    assert {"NDB_PORT", "NDB_OPS_PORT", "NDB_CONFIG", "NDB_DATASET", "NDB_ROLE"} <= OPTIONS


def test_a_server_beside_a_service_called_ndb_starts_and_says_what_it_passes_over(
    start_server: StartServer,
) -> None:
    made = {**of_a_service("NDB"), **of_a_service("NDB_OPS"), **of_a_service("NDB_CONFIG")}
    server = start_server(env={**made, "NDB_PROT": "1", "NDB_IDLE_TIMEOUT": "5"})
    server.stop()
    assert "health and metrics are at" not in server.stderr
    [of_services] = re.findall("WARNING .* have set for a Service: .*", server.stderr)
    assert all(name in of_services for name in made)
    assert of_services.endswith("; set the options of these names in another way")
    assert "WARNING ndb_server.cli: the variable NDB_PROT has no effect" in server.stderr
    assert "NDB_IDLE_TIMEOUT" not in server.stderr


def test_what_hides_no_option_is_worth_no_warning(start_server: StartServer) -> None:
    server = start_server(env=of_a_service("NDB_QUEUE"))
    server.stop()
    assert (
        "INFO ndb_server.cli: ignoring variables that Kubernetes or Docker have set"
        in server.stderr
    )
    assert "otherwise" not in server.stderr


def test_a_command_says_which_variables_have_no_effect() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ndb_server", "check"],
        env={"NDB_DATADIR": "data", **of_a_service("NDB")},
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert done.returncode == 2
    hint, error = done.stderr.splitlines()
    assert hint == (
        "ndb-server: the variable NDB_DATADIR has no effect: it is not an option; "
        "did you mean NDB_DATA_DIR?"
    )
    assert "--data-dir" in error
