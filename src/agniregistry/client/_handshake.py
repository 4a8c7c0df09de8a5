"""What a failed TLS handshake means, in words: gRPC hands out OpenSSL's."""

from __future__ import annotations

_MEANINGS = (
    (
        "certificate has expired",
        "expired",
        "the registry's certificate has expired; renew it on the node",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "untrusted",
        (
            "the registry's certificate is not vouched for by the trust bundle; "
            "check that the CA file is that of this registry"
        ),
    ),
    (
        "Hostname Verification Check failed",
        "hostname",
        (
            "the registry's certificate does not name the host that was asked for; "
            "use an address that it names, or have it issued with this one"
        ),
    ),
    (
        "WRONG_VERSION_NUMBER",
        "plaintext",
        (
            "the other side speaks plaintext and no TLS; leave out the certificates, "
            "or check the address"
        ),
    ),
)


def handshake_fault(details: str) -> tuple[str, str] | None:
    """A word and a sentence for gRPC's details of a failed call; None if TLS isn't at fault.

    A registry that refuses the client's certificate closes the connection and says nothing that
    gRPC would pass on, so that is not among them.
    """
    return next(((word, said) for mark, word, said in _MEANINGS if mark in details), None)
