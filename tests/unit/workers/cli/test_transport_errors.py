"""Words for what Temporal's client says of a connection; each text is one that it said."""

import pytest

from mandate.workers.cli.transport_errors import explain_refusal

INVALID = (
    "Server connection error: tonic::transport::Error(Transport, ConnectError(Custom { kind: InvalidData, error: "
    "InvalidCertificate({}) }))"
)


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        (
            INVALID.replace("{}", 'NotValidForNameContext { expected: DnsName("a"), presented: ["b"] }'),
            "its certificate is for another name",
        ),
        (INVALID.replace("{}", "UnknownIssuer"), "its certificate is of an authority that is not trusted here"),
        (INVALID.replace("{}", "ExpiredContext { time: UnixTime(2), not_after: UnixTime(1) }"), "its certificate has"),
        ("tonic::transport::Error(Transport, InconsistentKeys(KeyMismatch))", "the client certificate and the client"),
        ("error: InvalidMessage(InvalidContentType) }))", "it does not speak TLS"),
        ('error: "peer closed connection without sending TLS close_notify: ..."', "it ended the connection"),
        ("hyper::Error(Io, Kind(ConnectionReset))", "it ended the connection"),
        ('kind: BrokenPipe, error: "stream closed because of a broken pipe"', "it ended the connection"),
        ('Status { code: Unauthenticated, message: "no" }', "it refuses the API key, or wants one"),
    ],
)
def test_causes_in_words(text: str, begins: str) -> None:
    assert (explain_refusal(f"Failed client connect: {text}") or "").startswith(begins)


@pytest.mark.parametrize("text", ["tcp connect error: Connection refused (os error 111)", "dns error", ""])
def test_a_server_that_is_not_there_is_no_refusal(text: str) -> None:
    assert explain_refusal(text) is None
