"""The products of the comparison: how each is installed and started with the same data, and how it is asked."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from bench.gateway.proxies import idle_share
from bench.gateway.stage import Begin
from bench.http import Server
from onebox.environment import UPSTREAMS, database_variable
from onebox.stores import Postgres, Valkey
from services.members.settings import SANDBOX_KEY

HERE = Path(__file__).parent / "peers"
EMAIL, PASSWORD = "bench@example.com", "baking-2026-pw"
PLANS = (("black-card-1m", 1, 1990), ("black-card-3m", 3, 4900), ("black-card-12m", 12, 18900))
ANYBODY = "abf8a154-5b1c-4a46-ac9c-7300570f4f17"
"""The policy of callers without a token, under the id that every Directus gives it."""
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Product:
    """A product that runs, and how it is asked for the three operations; `headers` are those that everybody sends."""

    name: str
    server: Server
    idle: float
    plans: str
    login: tuple[str, str, str]
    own: str
    token: str
    headers: dict[str, str] = field(default_factory=dict)


@cache
def installed(name: str) -> Path | None:
    """The folder of a peer, installed by npm unless it was before; None, with the reason said, when npm cannot."""
    root = Path(os.environ.get("HEIKA_PEERS") or Path.home() / ".cache" / "heika-peers") / name
    wanted = (HERE / name / "package.json").read_text()
    done = root / "installed.json"
    if done.exists() and done.read_text() == wanted:
        return root
    root.mkdir(parents=True, exist_ok=True)
    shutil.copytree(HERE / name, root, dirs_exist_ok=True)
    print(f"npm installs {name} into {root} ...", flush=True)
    command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"]
    came = subprocess.run(command, check=False, cwd=root, capture_output=True, text=True)
    if came.returncode:
        print(f"{name} is left out: npm could not install it\n{came.stderr[-1000:]}")
        return None
    done.write_text(wanted)
    return root


def in_order(call: Callable[[], httpx.Response]) -> Any:
    """The JSON of an answer that must be good."""
    answer = call()
    if answer.is_error:
        raise RuntimeError(f"{answer.request.url} answered {answer.status_code}: {answer.text[:500]}")
    return answer.json() if answer.content else None


def client(port: int) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30)


def heika(begin: Begin, postgres: Postgres, valkey: Valkey, folder: Path, port: int) -> Product:
    """The whole product in one process."""
    postgres.ensure_database(*UPSTREAMS)
    environment = {
        "HEIKA_ENV": "sandbox",
        "HEIKA_LIMITS": "off",
        "HEIKA_DATA": str(folder / "heika"),
        "HEIKA_PORT": str(port),
        "HEIKA_LOG_LEVEL": "warning",
        "HEIKA_ADMIN_EMAIL": EMAIL,
        "HEIKA_ADMIN_PASSWORD": PASSWORD,
        "REDIS_URL": valkey.url,
        "MEMBERS_KEY": SANDBOX_KEY,
    } | {database_variable(name): postgres.url(name) for name in UPSTREAMS}
    server = begin([sys.executable, "-m", "onebox", "up"], environment, port, "/readyz", folder / "heika.log")
    with client(port) as http:
        phone = "+8613912345678"
        in_order(lambda: http.post("/v1/auth/otp", json={"phone": phone}))
        code = in_order(lambda: http.get("/v1/sandbox/otp", params={"phone": phone}))["code"]
        pair = in_order(lambda: http.post("/v1/auth/otp/verify", json={"phone": phone, "code": code}))
    body = f"grant_type=password&username={EMAIL.replace('@', '%40')}&password={PASSWORD}"
    login = ("/v1/auth/token", FORM, body)
    return Product("Heika", server, idle_share(server), "/v1/plans", login, "/v1/me", pair["access_token"])


def directus(begin: Begin, postgres: Postgres, folder: Path, port: int) -> Product | None:
    """Directus: plans and prices as collections, open to everybody; its first admin reads their own record."""
    root = installed("directus")
    if root is None:
        return None
    postgres.ensure_database("directus")
    environment = {
        "NODE_ENV": "production",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "SECRET": "a secret of this measurement and of nothing else",
        "DB_CLIENT": "pg",
        "DB_HOST": socket_of(postgres),
        "DB_PORT": "5432",
        "DB_DATABASE": "directus",
        "DB_USER": "postgres",
        "DB_PASSWORD": "",
        "ADMIN_EMAIL": EMAIL,
        "ADMIN_PASSWORD": PASSWORD,
        "HASH_MEMORY_COST": "19456",
        "HASH_TIME_COST": "2",
        "HASH_PARALLELISM": "1",
        "LOG_LEVEL": "warn",
        "TELEMETRY": "false",
        # It would refuse what makes it slow.
        "PRESSURE_LIMITER_ENABLED": "false",
        "EXTENSIONS_PATH": str(folder),
        "STORAGE_LOCAL_ROOT": str(folder),
    }
    # Not its own command, which asks for a newer version first.
    command = ["env", "-C", str(root), "node", "node_modules/@directus/api/dist/cli/run.js"]
    subprocess.run([*command, "bootstrap"], check=True, env=os.environ | environment, capture_output=True)
    server = begin([*command, "start"], environment, port, "/server/ping", folder / "directus.log")
    login = ("/auth/login", JSON, json.dumps({"email": EMAIL, "password": PASSWORD}))
    with client(port) as http:
        entered = in_order(lambda: http.post("/auth/login", json={"email": EMAIL, "password": PASSWORD}))
        token = entered["data"]["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        for collection, fields in (
            (
                "plans",
                {"code": "string", "name": "string", "months": "integer", "active": "boolean", "benefits": "json"},
            ),
            ("prices", {"version": "integer", "amount": "integer", "currency": "string", "plan": "integer"}),
        ):
            listed = [{"field": field, "type": kind, "schema": {}, "meta": {}} for field, kind in fields.items()]
            shape = {"collection": collection, "schema": {}, "meta": {}, "fields": listed}
            in_order(lambda shape=shape: http.post("/collections", json=shape))  # type: ignore[misc]
        many = {"field": "prices", "type": "alias", "meta": {"special": ["o2m"]}}
        in_order(lambda: http.post("/fields/plans", json=many))
        relation = {
            "collection": "prices",
            "field": "plan",
            "related_collection": "plans",
            "meta": {"one_field": "prices"},
        }
        in_order(lambda: http.post("/relations", json=relation))
        for code, months, amount in PLANS:
            price = {"version": 1, "amount": amount, "currency": "CNY"}
            plan = {"code": code, "name": code, "months": months, "active": True, "benefits": ["member_lessons"]}
            in_order(lambda plan=plan, price=price: http.post("/items/plans", json=plan | {"prices": [price]}))  # type: ignore[misc]
        for collection in ("plans", "prices"):
            read = {"policy": ANYBODY, "collection": collection, "action": "read", "fields": ["*"]}
            in_order(lambda read=read: http.post("/permissions", json=read))  # type: ignore[misc]
    plans = "/items/plans?fields=*,prices.*"
    return Product("Directus", server, idle_share(server), plans, login, "/users/me", token)


def strapi(begin: Begin, postgres: Postgres, folder: Path, port: int) -> Product | None:
    """Strapi: plans and prices as content types; what it needs at its first start is in peers/strapi."""
    root = installed("strapi")
    if root is None:
        return None
    postgres.ensure_database("strapi")
    for name in ("config", "src"):
        shutil.copytree(HERE / "strapi" / name, root / name, dirs_exist_ok=True)
    (root / "public" / "uploads").mkdir(parents=True, exist_ok=True)
    environment = {
        "NODE_ENV": "production",
        "PORT": str(port),
        "DB_HOST": socket_of(postgres),
        "ADMIN_EMAIL": EMAIL,
        "ADMIN_PASSWORD": PASSWORD,
        "STRAPI_TELEMETRY_DISABLED": "true",
        "STRAPI_LOG_LEVEL": "warn",
    }
    command = ["env", "-C", str(root), "node", "node_modules/@strapi/strapi/bin/strapi.js", "start"]
    plans = "/api/plans?populate=prices"
    server = begin(command, environment, port, plans, folder / "strapi.log")
    login = ("/api/auth/local", JSON, json.dumps({"identifier": EMAIL, "password": PASSWORD}))
    with client(port) as http:
        token = in_order(lambda: http.post(login[0], json=json.loads(login[2])))["jwt"]
    return Product("Strapi", server, idle_share(server), plans, login, "/api/users/me", token)


def medusa(begin: Begin, postgres: Postgres, folder: Path, port: int) -> Product | None:
    """Medusa: plans as products of one variant each, sold in one region; a customer reads their own record."""
    root = installed("medusa")
    if root is None:
        return None
    shutil.copy(HERE / "medusa" / "medusa-config.js", root)
    postgres.ensure_database("medusa")
    environment = {
        "NODE_ENV": "production",
        "DATABASE_URL": "postgres:///medusa",
        "PGHOST": socket_of(postgres),
        "PGUSER": "postgres",
        "LOG_LEVEL": "warn",
        "MEDUSA_DISABLE_TELEMETRY": "true",
    }
    command = ["env", "-C", str(root), "node", "node_modules/@medusajs/cli/cli.js"]
    for words in (["db:migrate"], ["user", "-e", EMAIL, "-p", PASSWORD]):
        subprocess.run([*command, *words], check=True, env=os.environ | environment, capture_output=True)
    server = begin([*command, "start", "-p", str(port)], environment, port, "/health", folder / "medusa.log")
    person = {"email": f"member-{EMAIL}", "password": PASSWORD}
    with client(port) as http:

        def made(path: str, body: dict[str, Any]) -> Any:
            return in_order(lambda: http.post(path, json=body))

        def enter(path: str, body: dict[str, str]) -> str:
            token = str(made(path, body)["token"])
            http.headers["Authorization"] = f"Bearer {token}"
            return token

        enter("/auth/user/emailpass", {"email": EMAIL, "password": PASSWORD})
        region = made("/admin/regions", {"name": "China", "currency_code": "cny", "countries": ["cn"]})["region"]["id"]
        channel = made("/admin/sales-channels", {"name": "bench"})["sales_channel"]["id"]
        for code, months, amount in PLANS:
            variant = {"title": code, "manage_inventory": False, "options": {"months": str(months)}}
            product = {
                "title": code,
                "status": "published",
                "metadata": {"months": months, "benefits": ["member_lessons"]},
                "sales_channels": [{"id": channel}],
                "options": [{"title": "months", "values": [str(months)]}],
                "variants": [variant | {"prices": [{"amount": amount, "currency_code": "cny"}]}],
            }
            made("/admin/products", product)
        key = made("/admin/api-keys", {"title": "bench", "type": "publishable"})["api_key"]
        made(f"/admin/api-keys/{key['id']}/sales-channels", {"add": [channel]})
        headers = {"x-publishable-api-key": key["token"]}
        http.headers.update(headers)
        enter("/auth/customer/emailpass/register", person)
        made("/store/customers", {"email": person["email"]})
        token = enter("/auth/customer/emailpass", person)
    plans = f"/store/products?region_id={region}&fields=title,metadata,*variants.calculated_price"
    login = ("/auth/customer/emailpass", JSON, json.dumps(person))
    return Product("Medusa", server, idle_share(server), plans, login, "/store/customers/me", token, headers)


def socket_of(postgres: Postgres) -> str:
    """The folder of PostgreSQL's socket."""
    found = re.search(r"host=([^&]+)", postgres.url("postgres"))
    if found is None:
        raise RuntimeError("PostgreSQL is not on a socket")
    return found[1]
