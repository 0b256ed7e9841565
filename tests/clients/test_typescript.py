"""The H5 client: compiled under strict from the committed document, and used by a program against a running Heika."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.h5_page import one_at_a_time
from tests.onebox.conftest import Heika

CLIENT = Path(__file__).resolve().parent.parent.parent / "clients" / "typescript"

pytestmark = pytest.mark.skipif(
    shutil.which("npm") is None or not (CLIENT / "node_modules").exists(),
    reason="the TypeScript client is not installed: npm ci --prefix clients/typescript",
)


def run(*words: str) -> str:
    ran = subprocess.run(words, check=False, cwd=CLIENT, capture_output=True, text=True, timeout=150)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_a_newcomer_logs_in_buys_and_goes_on_when_the_token_is_over(heika: Heika) -> None:
    with one_at_a_time():
        run("npm", "run", "build")
    heika.start()
    said = run("node", "dist/examples/first_steps.js", heika.address, "13900000456")
    assert said.splitlines() == [
        "logged in 36",
        "ordered 4900 true",
        "paid",
        "active true true",
        "404 code_unknown",
        "401 not_authenticated",
    ]
