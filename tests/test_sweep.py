"""The search that ends a run finds what it looks for."""

import hashlib
from base64 import b64encode
from pathlib import Path

import pytest

import sweep
from conftest import make
from keywright import Keywright


@pytest.mark.security("K-05", "T-02")
@pytest.mark.requirement("X-08")
@pytest.mark.parametrize(
    ("how", "written"),
    [
        ("as it is", lambda token: b"GET /?key=" + token),
        ("inside base64", lambda token: b"Basic " + b64encode(b"id:" + token)),
        ("as a SHA-256 in hex", lambda token: hashlib.sha256(token[-38:-6]).hexdigest().encode()),
    ],
)
def test_a_secret_that_was_left_behind_is_found(kw: Keywright, tmp_path: Path, how: str, written) -> None:  # type: ignore[no-untyped-def]
    """A file that holds an issued secret, in any of these forms, is named, and one without is not."""
    digests = {hashlib.sha256(secret).digest() for secret in sweep.issued}
    token = make(kw).credential.token.reveal().encode()
    digests.add(hashlib.sha256(token[-38:-6]).digest())
    leak, clean = tmp_path / "leak.env", tmp_path / "clean.env"
    leak.write_bytes(written(token))
    clean.write_bytes(b"GET /?key=" + b"A" * 38)

    assert list(sweep.search(leak, digests)) == [how]
    assert list(sweep.search(clean, digests)) == []
