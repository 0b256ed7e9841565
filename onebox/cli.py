"""The command line: start Heika, see its settings, fill, migrate or erase its data, write its documents."""

import asyncio
import os
import sys
from importlib import import_module
from typing import Annotated, Any
from uuid import UUID

import typer

from onebox.environment import UPSTREAMS, Place, place
from onebox.events import app as events_app
from onebox.trouble import Trouble

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Heika on one machine.", pretty_exceptions_enable=False
)
app.add_typer(events_app, name="events")
admin_app = typer.Typer(no_args_is_help=True, help="People who run the house.")
app.add_typer(admin_app, name="admin")


@app.command()
def up(*, split: Annotated[bool, typer.Option(help="every service as its own process, watched")] = False) -> None:
    """Start everything on HEIKA_HOST:HEIKA_PORT (127.0.0.1:8000), with the data in HEIKA_DATA (.heika)."""
    from onebox.box import Box  # noqa: PLC0415 - commands import what they need, so that the others start at once

    where = place()
    if split:
        from onebox.split import run as run_split  # noqa: PLC0415

        run_split(Box(where), lambda: greet(where))
    else:
        from onebox.one import run as run_one  # noqa: PLC0415

        run_one(Box(where), lambda: greet(where))


@app.command()
def settings() -> None:
    """List every setting with its meaning and default."""
    from onebox.listing import show  # noqa: PLC0415

    show()


@app.command()
def prepare() -> None:
    """Make the databases that a first start only copies; `make` does it when it has installed everything."""
    from onebox.prepared import make  # noqa: PLC0415

    print(f"prepared: {make()}")


@app.command()
def seed() -> None:
    """Load the sandbox's demo world into the databases; what is there stays as it is."""
    from onebox.box import Box  # noqa: PLC0415
    from onebox.work import seed_all  # noqa: PLC0415

    with Box(place()).attached():
        asyncio.run(seed_all())


@app.command()
def migrate() -> None:
    """Bring every service's database to the newest revision."""
    from onebox.box import Box  # noqa: PLC0415
    from onebox.one import migrate as migrate_all  # noqa: PLC0415

    with Box(place()).attached():
        asyncio.run(migrate_all())
    print(f"migrated: {', '.join(UPSTREAMS)}")


@app.command()
def reset(*, yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
    """Delete all data in HEIKA_DATA: databases, streams, uploads, secrets."""
    from onebox.erase import erase  # noqa: PLC0415

    where = place()
    if not yes:
        typer.confirm(f"Delete all of Heika's data in {where.data}? / 删除 {where.data} 中的全部数据?", abort=True)
    erase(where)
    print(f"deleted: {where.data}")


@app.command()
def openapi(
    *,
    check: Annotated[bool, typer.Option("--check", help="only say whether they are up to date")] = False,
    breaking: Annotated[bool, typer.Option("--breaking", help="operations may go, or be called otherwise")] = False,
) -> None:
    """Write docs/openapi.json and deploy/nginx.conf from the code; needs no database."""
    from onebox.documents import write  # noqa: PLC0415

    write(check=check, breaking=breaking)


@app.command()
def edge(listen: Annotated[str, typer.Option(help="what nginx listens on, such as '443 ssl http2'")] = "8080") -> None:
    """Print nginx's configuration for this environment: each prefix goes straight to its service."""
    from gateway.edge import UPSTREAMS as ALL  # noqa: PLC0415
    from gateway.edge import configuration  # noqa: PLC0415
    from kit.settings import Settings  # noqa: PLC0415

    addresses = {name: os.environ.get(f"HEIKA_UPSTREAM_{name.upper()}") or f"http://{name}:8000" for name in ALL}
    try:
        print(configuration(Settings(), addresses, listen), end="")
    except ValueError as error:
        raise Trouble(str(error), f"设置有误:{error}") from error


@app.command()
def recount(contest_id: UUID) -> None:
    """Count a contest once more from its vote rows; status 1 when anything differs from what was published."""
    from kit.errors import NotFound  # noqa: PLC0415
    from onebox.box import Box  # noqa: PLC0415
    from onebox.work import runtime  # noqa: PLC0415

    async def count() -> Any:
        async with runtime("showcase") as showcase:
            try:
                return await import_module("services.showcase.recount").recount(showcase, contest_id)
            except NotFound as missing:
                raise Trouble(missing.detail("en"), missing.detail("zh")) from missing

    with Box(place()).attached():
        found = asyncio.run(count())
    for rank, (entry_id, work) in enumerate(found.ranks, 1):
        print(f"{rank:6} {entry_id} {work.votes:8} votes from {len(work.trees)} invite trees")
    removed = ", ".join(f"{rule} {votes}" for rule, votes in sorted(found.removed.items()))
    print(
        f"votes {found.votes}, counted {found.counted}, removed: {removed or 'none'}",
        f"sha-256 {found.digest}",
        sep="\n",
    )
    if found.differences:
        raise Trouble("\n".join(["The rows say otherwise:", *found.differences]), "复核结果与公布的不一致:")
    print("agrees with what was published" if found.settled else "tallies agree with the rows; not settled yet")


@admin_app.command("create")
def admin_create(
    email: str,
    password: Annotated[str, typer.Option(prompt=True, hide_input=True, confirmation_prompt=True)],
    scope: Annotated[list[str] | None, typer.Option(help="may be repeated; none: all")] = None,
) -> None:
    """Make an admin, or give an existing one a new password."""
    from onebox.box import Box  # noqa: PLC0415
    from onebox.work import runtime  # noqa: PLC0415

    async def create() -> None:
        async with runtime("members") as members:
            try:
                await import_module("services.members.admins").create_admin(members, email, password, scope)
            except ValueError as error:
                raise Trouble(str(error), str(error)) from error

    with Box(place()).attached():
        asyncio.run(create())
    print(f"admin: {email}")


@admin_app.command("rotate-keys")
def admin_rotate_keys() -> None:
    """Sign tokens with the next key within a minute, as after a leak; those signed before count until they are over."""
    from onebox.box import Box  # noqa: PLC0415
    from onebox.work import runtime  # noqa: PLC0415

    async def rotate() -> None:
        async with runtime("members") as members:
            await import_module("services.members.signing").rotate_now(members)

    with Box(place()).attached():
        asyncio.run(rotate())
    print("the key in force has retired; the next one signs")


def greet(where: Place) -> None:
    """Say where everything is; printed when requests are answered."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("Heika 黑卡", f"[bold]{where.address}[/bold]")
    table.add_row("docs 文档", f"{where.address}/docs")
    table.add_row(
        "admin 管理员", f"{os.environ.get('HEIKA_ADMIN_EMAIL', '')}  {os.environ.get('HEIKA_ADMIN_PASSWORD', '')}"
    )
    table.add_row("data 数据", str(where.data))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print("ready; Ctrl-C stops it · 已就绪,按 Ctrl-C 停止")


def main() -> None:
    """Run a command; trouble is told in two lines and ends with status 1."""
    try:
        app()
    except Trouble as trouble:
        print(trouble.zh, trouble.en, sep="\n", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except ValueError as error:
        lines = bad_settings(error)
        if not lines:
            raise
        print("设置有误 / wrong settings:", *lines, sep="\n", file=sys.stderr)
        sys.exit(1)


def bad_settings(error: ValueError) -> list[str]:
    """One line for each setting that pydantic refused; none when it is another error."""
    from pydantic import ValidationError  # noqa: PLC0415

    if not isinstance(error, ValidationError):
        return []
    return [f"  {'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_input=False)]
