"""Why a server can't be reached: with TLS, without it, and with one side of each."""

import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import create_server

import pytest
from ndb import ConnectError, KvClient

from tests.support.certificates import SELF_SIGNED
from tests.support.event_loops import BOTH_LOOPS, Factory, run
from tests.support.server_process import StartServer
from tests.support.waiting import BOUND

TLS = (f"--tls-cert={SELF_SIGNED}", f"--tls-key={SELF_SIGNED}")


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=SELF_SIGNED)


def refusal(factory: Factory, client: KvClient) -> str:
    """Return why the client can't be opened."""

    async def main() -> str:
        with pytest.raises(ConnectError) as failure:
            await client.open(timeout=BOUND)
        return str(failure.value)

    return run(factory, main())


@BOTH_LOOPS
def test_a_port_with_tls_is_named_to_who_comes_without(
    start_server: StartServer, factory: Factory
) -> None:
    port = start_server(*TLS).port
    said = refusal(factory, KvClient(f"ws://localhost:{port}/"))
    assert "ended the connection without an answer; if it uses TLS on this port, use wss://" in said


@BOTH_LOOPS
def test_a_port_without_tls_is_named_to_who_comes_with_it(
    start_server: StartServer, factory: Factory
) -> None:
    port = start_server().port
    said = refusal(factory, KvClient(f"wss://localhost:{port}/", ssl=trusting()))
    assert "it does not use TLS on this port; use ws://" in said


@contextmanager
def once(context: ssl.SSLContext | None) -> Iterator[int]:
    """Accept one connection in a thread, with TLS if there is a context, and end it; yield the
    port.
    """
    listener = create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            if context is None:
                connection.recv(65536)
            else:
                # Python's own, which sends the alert with which it refuses.
                with context.wrap_socket(connection, server_side=True) as wrapped:
                    wrapped.recv(65536)

    thread = threading.Thread(target=serve)
    thread.start()
    with listener:
        yield listener.getsockname()[1]
        thread.join(BOUND)
    assert not thread.is_alive()


@BOTH_LOOPS
def test_a_server_that_hangs_up_on_tls_is_asked_whether_it_speaks_it(factory: Factory) -> None:
    with once(None) as port:
        said = refusal(factory, KvClient(f"wss://127.0.0.1:{port}/", ssl=trusting()))
    assert re.search(r"in the TLS handshake( \(.+\))?; does it use TLS on this port, or", said)


def wanting_certificates() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=SELF_SIGNED)
    context.load_cert_chain(SELF_SIGNED)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@BOTH_LOOPS
def test_the_alert_of_a_server_that_wants_a_certificate_is_told(factory: Factory) -> None:
    with once(wanting_certificates()) as port:
        said = refusal(factory, KvClient(f"wss://127.0.0.1:{port}/", ssl=trusting()))
    assert re.search("certificate required|may require a client certificate", said)


@BOTH_LOOPS
def test_a_client_without_the_certificate_it_needs_is_told_of_it(
    start_server: StartServer, factory: Factory
) -> None:
    port = start_server(*TLS, f"--tls-client-ca={SELF_SIGNED}").port
    context = trusting()
    # Up to 1.2 the server refuses in the TLS handshake, and from 1.3 on behind it.
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context.minimum_version = context.maximum_version = version
        said = refusal(factory, KvClient(f"wss://localhost:{port}/", ssl=context))
        assert re.search("certificate required|require a client certificate", said)


@BOTH_LOOPS
def test_a_handshake_that_is_refused_over_tls_is_an_error_and_no_traceback(
    start_server: StartServer, factory: Factory, tmp_path: Path
) -> None:
    (tmp_path / "auth").touch()
    port = start_server(*TLS, f"--auth-file={tmp_path / 'auth'}").port

    async def main() -> None:
        for _ in range(20):
            with pytest.raises(ConnectError, match="HTTP 401 Unauthorized"):
                await KvClient(f"wss://localhost:{port}/", ssl=trusting()).open()

    run(factory, main())
