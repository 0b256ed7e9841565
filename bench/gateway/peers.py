"""Heika beside what people would otherwise take for its simpler half: Directus, Strapi and Medusa, on one PostgreSQL, in one run.

Run: `python -m bench.gateway.peers` (three minutes, and several more where npm installs them first, into HEIKA_PEERS, by
default ~/.cache/heika-peers). Each product is one process in its production mode, and asked for its nearest operation: list
three plans with their prices as anybody, log in by password, read one's own record with a token. CPU is the process' own for
each answer, less what it uses while nobody asks. Heika is the whole product: gateway, limits' place, services, background
work; its limits are off, as the others have none. Directus hashes passwords as Heika does (Argon2id, 19 MiB, two passes, one
lane; its own default takes 64 MiB, three passes and four lanes); Strapi has bcrypt with cost 10 and nothing else, Medusa scrypt
with 32 MiB. Medusa keeps its cache, events and workflows in memory, which saves it the Redis that it recommends.
"""

import json
import shutil
import sys
import time
from pathlib import Path

from bench.gateway.products import PLANS, Product, client, directus, heika, installed, medusa, strapi
from bench.gateway.stage import stores
from bench.gateway.wrk import Refused, ask, ready
from onebox.split import free_ports

LINES = (1, 16, 64)
SECONDS = 3
REST_S = 0.1


def look(product: Product) -> None:
    """Show that each is asked for the same: three plans with their prices, a token, the caller's own record."""
    with client(product.server.port) as http:
        http.headers.update(product.headers)
        said = http.get(product.plans).raise_for_status().text
        if not all(str(amount) in said for *_, amount in PLANS):
            raise RuntimeError(f"{product.name} lists no prices: {said[:500]}")
        own = http.get(product.own, headers={"Authorization": f"Bearer {product.token}"}).raise_for_status()
        if http.get(product.own).is_success:
            raise RuntimeError(f"{product.name} shows {product.own} to anybody")
        path, kind, body = product.login
        entered = http.post(path, content=body, headers={"Content-Type": kind}).raise_for_status()
    sizes = (len(said), len(entered.content), len(own.content))
    print(f"{product.name}: answers of {sizes[0]}, {sizes[1]} and {sizes[2]} bytes")


def script(product: Product, title: str, folder: Path) -> Path:
    """An operation of the product's as a script of wrk's; what it sends is always the same."""
    _, kind, body = product.login
    headers = product.headers | {"list plans": {}, "log in": {"Content-Type": kind}}.get(
        title, {"Authorization": f"Bearer {product.token}"}
    )
    words = [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()]
    words += [f'wrk.method, wrk.body = "POST", {json.dumps(body)}'] if title == "log in" else []
    (written := folder / f"{product.name}.lua").write_text("\n".join(words))
    return written


def rest(product: Product) -> None:
    """Let the product finish what nobody waits for any more, so that the next one has the machine to itself."""
    for _ in range(100):
        before = product.server.cpu_seconds()
        time.sleep(REST_S)
        if product.server.cpu_seconds() - before < REST_S / 4:
            return


def measure(products: list[Product], folder: Path) -> None:
    """Each operation of all products in turn, for each number of connections, beside the first product."""
    for title in ("list plans", "log in", "read own record"):
        print(f"\n{title:24}{'a second':>10}{'p50 ms':>10}{'p99 ms':>10}{'CPU ms':>10}{'of Heika':>10}")
        for lines in LINES:
            print(f"{lines} connections")
            ours = 0.0
            for product in products:
                path = {"list plans": product.plans, "read own record": product.own}.get(title, product.login[0])
                asking = script(product, title, folder)
                try:
                    one = ask(product.server, path, lines, SECONDS, script=asking, idle=product.idle)
                except Refused as refused:
                    why = next(line for line in str(refused).splitlines() if "Non-2xx" in line or "Socket" in line)
                    print(f"  {product.name:22}{why.strip()}")
                    continue
                finally:
                    rest(product)
                ours = ours or one.a_second
                print(
                    f"  {product.name:22}{one.a_second:10.0f}{one.p50:10.2f}{one.p99:10.2f}{one.cpu / 1000:10.2f}"
                    f"{one.a_second / ours if ours else 0:10.3f}"
                )


def main() -> None:
    """Run it on stores of its own, in a folder that is gone afterwards."""
    missing = ready() or (None if shutil.which("npm") else "npm is not installed (Debian: apt-get install npm)")
    if missing is not None:
        sys.exit(missing)
    # First, since it may take longer than a token is good for.
    for peer in ("directus", "strapi", "medusa"):
        installed(peer)
    with stores() as (folder, postgres, valkey, begin):
        ports = free_ports(4)
        began = time.monotonic()
        started = [
            heika(begin, postgres, valkey, folder, ports[0]),
            directus(begin, postgres, folder, ports[1]),
            strapi(begin, postgres, folder, ports[2]),
            medusa(begin, postgres, folder, ports[3]),
        ]
        products = [one for one in started if one is not None]
        for product in products:
            look(product)
        print(f"started in {time.monotonic() - began:.0f} s")
        measure(products, folder)


if __name__ == "__main__":
    main()
