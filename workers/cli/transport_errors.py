"""Errors of a connection to Temporal in words: TLS, certificates and API keys."""

import re

_CAUSES = (
    (
        r"NotValidForName",
        "its certificate is for another name; say which with --tls-server-name or TEMPORAL_TLS_SERVER_NAME",
    ),
    (
        r"UnknownIssuer|CaUsedAsEndEntity|BadSignature",
        (
            "its certificate is of an authority that is not trusted here; name the file of that authority with "
            "--tls-ca-path or TEMPORAL_TLS_SERVER_CA_CERT_PATH"
        ),
    ),
    (r"InvalidCertificate\(Expired", "its certificate has expired, or the clock of this machine is wrong"),
    (r"InvalidCertificate\(NotValidYet", "its certificate is not valid yet, or the clock of this machine is wrong"),
    (r"KeyMismatch", "the client certificate and the client key do not belong together"),
    (r"InvalidContentType", "it does not speak TLS; leave out TLS, API key and certificates, or use --no-tls"),
    (
        r"close_notify|connection closed|ConnectionReset|BrokenPipe|ConnectionAborted",
        (
            "it ended the connection; it may demand TLS (--tls), or a client certificate that it knows "
            "(--tls-cert-path and --tls-key-path)"
        ),
    ),
    (
        r"code: Unauthenticated|code: PermissionDenied|[Uu]nauthorized",
        "it refuses the API key, or wants one; set TEMPORAL_API_KEY, or the file of that name in MANDATE_SECRETS",
    ),
)


def explain_refusal(text: str) -> str | None:
    """Return why a server that is there cannot be used, with what to do; `None` where the error does not tell that."""
    return next((why for pattern, why in _CAUSES if re.search(pattern, text)), None)
