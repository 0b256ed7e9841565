"""Every setting of the kit, the services, the gateway and this start, read from where each is declared."""

from dataclasses import dataclass
from importlib import import_module

from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from kit.settings import ServiceSettings, Settings
from onebox.environment import UPSTREAMS


@dataclass(frozen=True, slots=True)
class Setting:
    """An environment variable: what it means, what it is when unset, who reads it."""

    name: str
    default: str
    meaning: str
    readers: tuple[str, ...]


ONEBOX = (
    Setting("HEIKA_PORT", "8000", "port of the gateway (make up)", ("onebox",)),
    Setting("HEIKA_HOST", "127.0.0.1", "address the gateway listens on (make up)", ("onebox",)),
    *(
        Setting(f"HEIKA_UPSTREAM_{name.upper()}", "", f"address of {name}, such as http://{name}:8000", ("gateway",))
        for name in UPSTREAMS
    ),
    Setting("HEIKA_UPSTREAM_GATEWAY", "http://gateway:8000", "address of the gateway behind nginx", ("onebox edge",)),
)


def listing() -> list[Setting]:
    """All settings, by name."""
    shared, serving = _declared(Settings), _declared(ServiceSettings)
    readers: dict[str, tuple[str, ...]] = dict.fromkeys(serving, ("every service",))
    readers |= dict.fromkeys(shared, ("all",))
    fields = serving | shared
    for name in UPSTREAMS:
        own = _declared(import_module(f"services.{name}.settings").Settings)
        for variable in own.keys() - serving.keys():
            fields[variable] = own[variable]
            readers[variable] = (*readers.get(variable, ()), name)
    # Each service names its own database variable in place of this one.
    del fields["DATABASE_URL"]
    found = [
        Setting(variable, _shown(field.default), field.description or "", readers[variable])
        for variable, field in fields.items()
    ]
    return sorted((*ONEBOX, *found), key=lambda setting: setting.name)


def show() -> None:
    """Print the settings as a table."""
    from rich import box  # noqa: PLC0415 - only this command draws
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()
    table = Table(box=box.SIMPLE, title="Settings, by environment; make up fills in what is unset")
    table.add_column("name", no_wrap=True)
    for column in ("default", "meaning", "read by"):
        table.add_column(column, overflow="fold")
    for setting in listing():
        table.add_row(setting.name, Text(setting.default or "-"), Text(setting.meaning), ", ".join(setting.readers))
    # Without a terminal nothing is cut: the table is for grep then.
    if not console.is_terminal:
        console = Console(width=240)
    console.print(table)


def _declared(model: type[BaseSettings]) -> dict[str, FieldInfo]:
    """A model's fields by the environment variable each is read from."""
    found = {}
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        found[str(alias.choices[0]) if isinstance(alias, AliasChoices) else name.upper()] = field
    return found


def _shown(default: object) -> str:
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return ""
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
