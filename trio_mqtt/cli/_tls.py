"""Files with certificates to what TLS needs."""

from __future__ import annotations

import argparse
import ssl

from ._failures import Failure, Misuse


def tls_context(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """What ``--ca``, ``--cert`` and ``--key`` ask for, None when none of them is there.

    Raises:
        Misuse: a key without a certificate.
        Failure: a file cannot be read, or is not what it should be.
    """
    ca: str | None = arguments.ca
    cert: str | None = arguments.cert
    key: str | None = arguments.key
    if key is not None and cert is None:
        raise Misuse("--key is the key of a certificate: give --cert too")
    if ca is None and cert is None:
        return None
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:  # also an `ssl.SSLError`
        raise Failure(f"cannot use --ca {ca}: {_reason(error)}") from error
    if cert is not None:
        try:
            context.load_cert_chain(cert, key)
        except OSError as error:
            files = f"--cert {cert}" if key is None else f"--cert {cert} and --key {key}"
            raise Failure(f"cannot use {files}: {_reason(error)}") from error
    return context


def require_tls(arguments: argparse.Namespace, url: str) -> None:
    """Looks whether the options about TLS are for something.

    Raises:
        Misuse: the URL is of a connection without.
    """
    asked = arguments.ca or arguments.cert or arguments.server_name
    if asked is not None and not url.lower().startswith(("mqtts://", "wss://")):
        raise Misuse("--ca, --cert and --server-name are for a --broker by mqtts:// or wss://")


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "it is not in PEM, or the key is another one's"
    return error.strerror or str(error)
