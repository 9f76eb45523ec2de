"""Certificates: an authority that signs them, and one that signed itself."""

import ssl
from pathlib import Path

import trustme

SELF_SIGNED = Path(__file__).with_name("localhost.pem")
"""A certificate for localhost, which nobody trusts unless told to, and its key."""


class Authority(trustme.CA):
    """Signs certificates, and has clients that trust it."""

    def files(self, folder: Path, name: str) -> list[str]:
        """Write a certificate for `name`; return the options that let a server use it."""
        issued = self.issue_cert(name, common_name=name)
        chain, key = folder / f"{name}.pem", folder / f"{name}.key"
        chain.unlink(missing_ok=True)
        for part in issued.cert_chain_pems:
            part.write_to_path(chain, append=True)
        issued.private_key_pem.write_to_path(key)
        return ["--tls-cert", str(chain), "--tls-key", str(key)]

    def client(self, name: str | None = None) -> ssl.SSLContext:
        """Return what a client connects with, one with a certificate if it has a `name`."""
        context = ssl.create_default_context()
        self.configure_trust(context)
        if name is not None:
            self.issue_cert(name).configure_cert(context)
        return context
