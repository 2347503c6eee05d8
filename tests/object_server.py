"""A local server that speaks S3, for tests of stores on object storage."""

import shutil
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import PROJECT


class ObjectServer:
    """moto on a port of its own; everything it holds ends with it."""

    def __init__(self, program: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process = subprocess.Popen(
            [program, "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while not self._answers():
            assert time.monotonic() < deadline, "the object server does not start"
            time.sleep(0.05)

    def bucket(self) -> str:
        """The URL of a new bucket."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        request = urllib.request.Request(f"{self.url}/{name}", method="PUT")
        with urllib.request.urlopen(request):
            return f"s3://{name}"

    def stop(self) -> None:
        """End it at once, as a server that breaks down does."""
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False


@contextmanager
def object_server() -> Iterator[ObjectServer]:
    """A running server that obstore finds by the environment, or a skip with the reason."""
    own = PROJECT / ".venv-s3" / "bin" / "moto_server"
    program = str(own) if own.is_file() else shutil.which("moto_server")
    if program is None:
        pytest.skip(f"no moto_server at {Path(own)}; .ci/run installs it")
    server = ObjectServer(program)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", server.url)
        environment.setenv("AWS_ACCESS_KEY_ID", "anybody")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "anything")
        environment.setenv("AWS_REGION", "us-east-1")
        try:
            yield server
        finally:
            server.stop()
