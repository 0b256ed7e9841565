"""What the repository says of itself is so."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def tracked() -> list[Path]:
    answer = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [Path(line) for line in answer.stdout.splitlines()]


def test_architecture_lists_every_folder_and_no_other() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    tree = re.search(r"## The tree.*?```\n(.*?)```", text, re.DOTALL)
    assert tree is not None
    listed = {line.split()[0].rstrip("/") for line in tree[1].splitlines()}
    folders = {path.parts[0] for path in tracked() if len(path.parts) > 1 and not path.parts[0].startswith(".")}
    folders |= {"/".join(path.parts[:2]) for path in tracked() if path.parts[0] == "services" and len(path.parts) > 2}
    assert listed == folders


def test_links_between_pages_lead_somewhere() -> None:
    for page in (path for path in tracked() if path.suffix == ".md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
            assert (ROOT / page.parent / target).exists(), f"{page}: {target}"


def test_the_lock_file_names_no_index() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert "--index" not in lock
    assert lock.count("--hash=sha256:") > 100
