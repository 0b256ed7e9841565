"""The H5 example as a test has it: built for a Heika, served from an origin of its own, held in a phone's browser."""

import fcntl
import io
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image
from playwright.sync_api import BrowserContext, Page, Response, expect

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLE = ROOT / "examples" / "h5"
CLIENT = ROOT / "clients" / "typescript"
PICTURES = frozenset({"home", "home-dark", "card", "live", "contest"})
# What Chromium says of every refused call; which calls may be refused is asserted call by call.
REFUSED = re.compile(r"Failed to load resource: (the server responded with a status of|net::ERR_INTERNET_DISCONNECTED)")


def missing() -> str | None:
    """What has to be installed before the example can be built."""
    for folder in (CLIENT, EXAMPLE):
        if shutil.which("npm") is None or not (folder / "node_modules").exists():
            return f"the H5 example is not installed: npm ci --prefix {folder.relative_to(ROOT)}"
    return None


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Held while the client's types are written and read, which the tests of several processes do."""
    with (Path(tempfile.gettempdir()) / f"heika-types-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(api: str, folder: Path) -> None:
    """`npm run build`: strict types and a bundle, for a Heika at this address."""
    settings = os.environ | {"HEIKA_API": api, "H5_FOLDER": str(folder)}
    with one_at_a_time():
        ran = subprocess.run(
            ["npm", "run", "build"],
            check=False,
            cwd=EXAMPLE,
            env=settings,
            capture_output=True,
            text=True,
            timeout=150,
        )
    assert ran.returncode == 0, ran.stdout + ran.stderr


class _Quiet(SimpleHTTPRequestHandler):
    # Chromium opens connections that it may want; their threads must end with the server.
    timeout = 1

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The built page at an origin of its own, which is not Heika's."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        server.daemon_threads = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Phone:
    """A tab of the page, with what went wrong in it and which of its calls were refused."""

    def __init__(self, context: BrowserContext, api: str) -> None:
        self.page: Page = context.new_page()
        self.api = api
        self.errors: list[str] = []
        self.refused: list[tuple[int, str]] = []
        self.calls: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self._hear(said.type, said.text))
        self.page.on("response", self._note)

    def _hear(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not REFUSED.match(text):
            self.errors.append(text)

    def _note(self, response: Response) -> None:
        if response.url.startswith(self.api) and response.request.method != "OPTIONS":
            path = urlsplit(response.url).path
            self.calls.append(f"{response.request.method} {path}")
            if response.status >= 400:
                self.refused.append((response.status, path))

    def new_refusals(self) -> list[tuple[int, str]]:
        """Calls refused since this was asked last."""
        told, self.refused = self.refused, []
        return told

    def go(self, to: str, heading: str) -> None:
        """Open a screen and wait for it."""
        self.page.evaluate("to => { location.hash = to }", to)
        self.stands(heading)

    def stands(self, heading: str) -> None:
        """Wait for a screen, which then has the focus on its heading, as a screen reader needs it."""
        expect(self.page.locator("h1")).to_have_text(heading)
        expect(self.page.locator("main")).not_to_have_attribute("aria-busy", "true")

    def said(self, text: str) -> None:
        """Wait for the notice."""
        expect(self.page.locator("#notice")).to_contain_text(text)

    def tokens(self) -> dict[str, str]:
        """The session that this browser keeps."""
        kept: dict[str, str] = self.page.evaluate("JSON.parse(localStorage.getItem('heika.session'))")
        return kept

    def headers(self) -> dict[str, str]:
        """The same caller, without the browser."""
        return {"Authorization": f"Bearer {self.tokens()['access_token']}"}

    def look(self, name: str) -> None:
        """Hold the screen against the rules: nothing is cut off at 360, and everybody can read and use it, day and night."""
        self.page.evaluate("scrollTo(0, 0), document.getElementById('notice').replaceChildren()")
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme)
            found = self.page.evaluate(AXE, name)
            assert found == [], f"{name}, {scheme}"
            self._keep(name if scheme == "light" else f"{name}-dark")
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size({"width": 360, "height": 740})
        wide = self.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360, f"{name} is {wide} wide"
        self.page.set_viewport_size({"width": 390, "height": 844})

    def _keep(self, name: str) -> None:
        """Write a picture that is shown somewhere into the folder that HEIKA_SCREENSHOTS names, if it names one."""
        folder = os.environ.get("HEIKA_SCREENSHOTS")
        if folder and name in PICTURES:
            shot = Image.open(io.BytesIO(self.page.screenshot()))
            shot.convert("RGB").save(Path(folder) / f"h5-{name}.webp", quality=82, method=6)


# Read once, from what npm installed; run in the page by the debugger, which its policy does not bind.
AXE = """async (name) => {
  const found = await axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] });
  return found.violations.map((rule) => rule.id + ": " + rule.nodes.map((node) => node.html + " " + node.failureSummary).join(" | "));
}"""


def axe() -> str:
    """The library that knows the rules of accessibility."""
    return (EXAMPLE / "node_modules" / "axe-core" / "axe.min.js").read_text()
