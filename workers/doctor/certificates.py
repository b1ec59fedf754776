"""Check of the certificates for Temporal: how long they hold."""

from datetime import UTC, datetime, timedelta

from temporalio.service import TLSConfig

from mandate.workers.doctor.findings import Finding, join

SOON = timedelta(days=30)


def check_certificates(tls: object, now: datetime | None = None) -> Finding:
    """Check the TLS setting of a connection, as `Client.connect` takes it."""
    check = "certificates"
    if not tls:
        return Finding(check, "skipped", "the connection uses no TLS")
    named = {}
    if isinstance(tls, TLSConfig):
        named = {"the client certificate": tls.client_cert, "the CA certificate": tls.server_root_ca_cert}
    found = [_judge(what, content, now or datetime.now(UTC)) for what, content in named.items() if content]
    if not found:
        return Finding(check, "ok", "TLS with the authorities of this machine, without a client certificate")
    return join(check, found)


def _judge(what: str, content: bytes, now: datetime) -> Finding:
    from cryptography import x509  # noqa: PLC0415 - only with certificates of one's own

    try:
        first = x509.load_pem_x509_certificates(content)[0]
    except ValueError:
        return Finding("", "fail", f"{what} is no certificate in PEM", "name another file")
    ends, begins = first.not_valid_after_utc, first.not_valid_before_utc
    if now >= ends:
        return Finding("", "fail", f"{what} expired on {ends:%Y-%m-%d}", "put a new one in its place")
    if now < begins:
        return Finding("", "fail", f"{what} holds from {begins:%Y-%m-%d} on", "look at the clock of this machine")
    found = f"{what} holds until {ends:%Y-%m-%d}"
    if ends - now < SOON:
        return Finding("", "warn", found, "put a new one in its place, and restart the workers")
    return Finding("", "ok", found)
