"""Whose certificate a host with this configuration would not believe, so that it reads none of that host's copies."""

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from glance_replicas.check import Facts
from glance_replicas.ledger.host_registry import is_alive
from glance_replicas.settings import Settings
from glance_replicas.stores.http.wire import Tls

_MOST = 50  # hosts asked


def unbelieved(facts: Facts, settings: Settings, tls: Tls) -> Iterator[tuple[str, str]]:
    """URLs of this host and of living others with https, and why. A host that does not answer says nothing of it."""
    urls = [settings.host_url or "", *(host.url for host in facts.hosts if is_alive(host, settings))]
    wanted = [url for url in dict.fromkeys(urls) if url.startswith("https:")][:_MOST]
    if not wanted or tls.insecure:
        return
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except OSError as error:
        unusable = f"https_ca_certificates_file {tls.ca_file}: {error.strerror or 'no certificates in it'}"
        yield from ((url, unusable) for url in wanted)
        return
    for url in wanted:
        if reason := _reason(url, context, settings.connect_timeout_seconds):
            yield url, reason


def _reason(url: str, context: ssl.SSLContext, seconds: float) -> str | None:
    """What is wrong with the certificate of the server at a URL; None: nothing, or it could not be asked."""
    parts = urlsplit(url)
    name = parts.hostname or ""
    try:
        with socket.create_connection((name, parts.port or 443), seconds) as plain:
            context.wrap_socket(plain, server_hostname=name).close()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message.lower()
    except ssl.SSLError:
        return "it does not speak TLS"
    except OSError:
        return None
    return None
