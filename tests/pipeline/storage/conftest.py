"""An S3 server for the tests of this folder."""

import secrets
from collections.abc import Iterator

import pytest

from tests.storage_server import ENVIRONMENT, S3Server, serve_s3


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    pytest.importorskip("moto.server")
    with serve_s3(tmp_path_factory.mktemp("moto") / "log") as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, with the environment of this process set so that it is found."""
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": s3_server.url}.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """An empty bucket of its own for each test."""
    name = f"bucket-{secrets.token_hex(4)}"
    s3.files().create_dir(name)
    return name
