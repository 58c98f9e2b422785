"""Authorities and certificates, made for the tests at hand.

What is ignored is that trustme also knows a context of pyOpenSSL, which is not installed.
"""

from __future__ import annotations

import datetime as dt
import functools
import ssl
from pathlib import Path

import trustme

HOST = "broker.test"


@functools.cache
def authority(_name: str) -> trustme.CA:
    """One authority for each name."""
    return trustme.CA()


def issue(host: str = HOST, *, by: str = "ours", expired: bool = False) -> trustme.LeafCert:
    """A certificate for `host`."""
    now = dt.datetime.now(dt.UTC)
    end = now - dt.timedelta(days=10) if expired else None
    return authority(by).issue_cert(host, not_before=now - dt.timedelta(days=20), not_after=end)


def server(
    host: str = HOST, *, by: str = "ours", expired: bool = False, wants_certificate: bool = False
) -> ssl.SSLContext:
    """Of a broker that is `host`."""
    certificate = issue(host, by=by, expired=expired)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    if wants_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        authority("ours").configure_trust(context)  # pyright: ignore[reportUnknownMemberType]
    return context


def client(*, trusting: str = "ours", known_by: str | None = None) -> ssl.SSLContext:
    """Of a client that trusts an authority, with a certificate if `known_by` one."""
    context = ssl.create_default_context()
    authority(trusting).configure_trust(context)  # pyright: ignore[reportUnknownMemberType]
    if known_by is not None:
        certificate = issue("clients.test", by=known_by)
        certificate.configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    return context


def client_files(folder: Path) -> str:
    """The path of a client's certificate together with its key."""
    path = folder / "client.pem"
    issue("clients.test").private_key_and_cert_chain_pem.write_to_path(path)
    return str(path)
