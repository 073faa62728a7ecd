"""From settings to the address that the pools connect to, with its TLS context. No I/O but reading
the certificates.
"""

from __future__ import annotations

import ssl

from filesfs.backend.pool import Address
from filesfs.backend.settings import BackendSettings


def tls_context(settings: BackendSettings) -> ssl.SSLContext | None:
    """The TLS settings for an https server, None for http."""
    if not settings.is_tls:
        return None
    context = ssl.create_default_context(cafile=settings.ca_file)
    if settings.client_cert is not None:
        context.load_cert_chain(settings.client_cert, settings.client_key)
    return context


def address_of(settings: BackendSettings) -> Address:
    """Where the settings' server listens."""
    return Address(settings.host, settings.port, settings.unix_socket, tls_context(settings))
