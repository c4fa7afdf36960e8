"""A real S3 server on loopback for tests (moto), and a proxy before it that misbehaves as told."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pyarrow.fs as fs

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
REDIRECT = b"<Error><Code>PermanentRedirect</Code><Message>Use the endpoint of the bucket.</Message></Error>"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@dataclass(frozen=True)
class S3Server:
    """A server that is up."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find it."""
        return {**os.environ, **ENVIRONMENT, "AWS_ENDPOINT_URL": self.url}

    def files(self) -> fs.S3FileSystem:
        """A file system of its own, as a user's other tools have one."""
        return fs.S3FileSystem(
            endpoint_override=self.url,
            access_key="test",
            secret_key="test",
            region="us-east-1",
            allow_bucket_creation=True,
        )

    def upload(self, folder: Path, bucket: str, prefix: str = "") -> None:
        """Copy a folder into a bucket, which is made."""
        self.files().create_dir(bucket)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            for path in sorted(folder.rglob("*")):
                if path.is_file():  # one request each, where pyarrow makes three
                    key = "/".join(filter(None, (prefix, path.relative_to(folder).as_posix())))
                    connection.request("PUT", quote(f"/{bucket}/{key}"), path.read_bytes())
                    response = connection.getresponse()
                    response.read()
                    assert response.status == 200, response.reason

    def download(self, path: str, folder: Path) -> Path:
        """Copy what is below bucket/prefix into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        fs.copy_files(path, str(folder), source_filesystem=self.files(), destination_filesystem=fs.LocalFileSystem())
        return folder

    def names(self, path: str) -> set[str]:
        """Every object below bucket/prefix, relative to it."""
        found = self.files().get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
        return {info.path.removeprefix(path).strip("/") for info in found if info.is_file}


@contextlib.contextmanager
def serve_s3(log: Path) -> Iterator[S3Server]:
    """Run moto's server until this context is left."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as stream, subprocess.Popen(command, stdout=stream, stderr=stream) as process:
        try:
            _wait_for(port, process)
            yield S3Server(port)
        finally:
            process.kill()


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, "moto's server has ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.1)
    raise TimeoutError("moto's server does not answer")


@dataclass
class Faults:
    """What the proxy does to requests. `answer` gives status and body in place of the server's, or None."""

    answer: Callable[[str, str], tuple[int, bytes] | None] = lambda method, path: None
    delay_s: Callable[[str, str], float] = lambda method, path: 0.0
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)


@contextlib.contextmanager
def misbehaving(server: S3Server) -> Iterator[tuple[S3Server, Faults]]:
    """A proxy before the server, and what it is told to do wrong."""
    faults = Faults()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self._read_body()
            faults.requests.append((self.command, self.path))
            time.sleep(faults.delay_s(self.command, self.path))
            answer = faults.answer(self.command, self.path)
            if answer is not None:
                status, content = answer
                self._reply(status, content, {"Content-Type": "application/xml", **faults.headers})
                return
            onward = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            kept = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            onward.request(self.command, self.path, body, kept)
            response = onward.getresponse()
            kept = {name: value for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP}
            self._reply(response.status, response.read(), kept)
            onward.close()

        def _read_body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(chunks)

        def _reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError, TimeoutError):
                super().handle()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

        def log_message(self, *_: object) -> None: ...

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield S3Server(proxy.server_address[1]), faults
    finally:
        proxy.shutdown()
        proxy.server_close()


_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "date", "server"}
