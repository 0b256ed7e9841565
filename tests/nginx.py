"""A real nginx for tests, with the configuration that the route table makes."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needed = pytest.mark.skipif(PROGRAM is None, reason="nginx is not installed (Debian: apt-get install nginx-light)")


@contextlib.contextmanager
def running(folder: Path, configuration: str) -> Iterator[None]:
    """Nginx with this configuration and all its files in `folder`; its log of requests is `requests.log` there."""
    assert PROGRAM is not None
    (folder / "heika.d").mkdir()
    own = [f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    (folder / "heika.d" / "places.conf").write_text("".join(own))
    (folder / "nginx.conf").write_text(configuration.replace("/dev/stdout", str(folder / "requests.log")))
    command = [PROGRAM, "-e", str(folder / "errors.log"), "-c", str(folder / "nginx.conf")]
    user = "user root; " if os.geteuid() == 0 else ""
    command += ["-g", f"{user}pid {folder}/pid; daemon off; worker_rlimit_nofile 16384;"]
    checked = subprocess.run([*command, "-t"], check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr, checked.stderr
    process = subprocess.Popen(command)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)
