"""The gateway beside nginx and HAProxy, in front of the same services, in one run with p50 and p99.

Run: `python -m bench.gateway.proxies` (twelve minutes). Every server is one process with one thread. "Empty" is an
nginx that answers `{}`; the others check a token and read the database, and the gateway checks it and counts limits as well:
"membership" by the hottest path there is, many readers in one statement; "check-ins" in a transaction, as most calls. CPU is the
named process' own for each answer, less what it uses while nobody asks: it says the same on a busy machine.

A shared machine is by a third slower in one minute than in the next: all ways take turns of two seconds, and each figure is
the median of its turns, the ratio that of each turn to the direct one of the same round.
"""

import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.gateway.stage import stage
from bench.gateway.wrk import Asked, ask, ready
from bench.http import Server
from onebox.environment import UPSTREAMS
from onebox.split import free_ports, uvicorn_command

LINES = (1, 16, 64, 256)
SECONDS = 2
ROUNDS = 5
BETWEEN_SECONDS = 0.4
"""For answers that nobody reads any more."""
IDLE_SECONDS = 3.0
HOME_TURNS = 200
RESTS = 5

NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.err crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder};
  scgi_temp_path {folder};
  {servers}
}}
"""
EMPTY = """server {{ listen 127.0.0.1:{port}; default_type application/json; return 200 '{{}}'; }}"""
PASSING = """
upstream to{port} {{ server 127.0.0.1:{target}; keepalive 512; keepalive_requests 100000000; }}
server {{
  listen 127.0.0.1:{port};
  location / {{
    proxy_pass http://to{port}; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header Host $host;
  }}
}}
"""
HAPROXY = """
global
  nbthread 1
  maxconn 8192
defaults
  mode http
  option forwardfor
  http-reuse always
  timeout connect 2s
  timeout client 60s
  timeout server 60s
"""
HAPROXY_PAIR = """
listen on{port}
  bind 127.0.0.1:{port}
  server one 127.0.0.1:{target}
"""


@dataclass(frozen=True)
class Way:
    """One way to an answer: which server is asked, and which it is compared with."""

    name: str
    server: Server
    idle: float = 0.0


def idle_share(server: Server) -> float:
    """The share of a core that a server takes while nobody asks."""
    before = server.cpu_seconds()
    time.sleep(IDLE_SECONDS)
    return (server.cpu_seconds() - before) / IDLE_SECONDS


def nginx(folder: Path, name: str, servers: str) -> list[str]:
    """The command of an nginx with these servers."""
    (folder / f"{name}.conf").write_text(NGINX.format(folder=folder, name=name, servers=servers))
    return ["nginx", "-e", str(folder / f"{name}.err"), "-c", str(folder / f"{name}.conf")]


def haproxy(folder: Path, pairs: dict[int, int]) -> list[str]:
    """The command of a HAProxy from each port to its target."""
    listens = "".join(HAPROXY_PAIR.format(port=port, target=target) for port, target in pairs.items())
    (folder / "haproxy.conf").write_text(HAPROXY + listens)
    return ["haproxy", "-db", "-f", str(folder / "haproxy.conf")]


def gateway_environment(common: dict[str, str], port: int) -> dict[str, str]:
    """Everything behind a gateway of its own at this port."""
    return common | {f"HEIKA_UPSTREAM_{name.upper()}": f"http://127.0.0.1:{port}" for name in UPSTREAMS}


def in_turns(
    ways: list[Way], path: str, lines: int, tokens: Path | None, rounds: int = ROUNDS
) -> dict[str, list[Asked]]:
    """All turns of each way; every other round goes backwards, so that nobody is always the first."""
    asked: dict[str, list[Asked]] = {way.name: [] for way in ways}
    for number in range(rounds):
        for way in ways[:: -1 if number % 2 else 1]:
            asked[way.name].append(ask(way.server, path, lines, SECONDS, tokens=tokens, idle=way.idle))
            time.sleep(BETWEEN_SECONDS)
    return asked


def ratio(ours: list[Asked], theirs: list[Asked]) -> float:
    """Answers a second beside another way's, round by round."""
    return statistics.median(one.a_second / other.a_second for one, other in zip(ours, theirs, strict=True))


def middle(turns: list[Asked]) -> Asked:
    """The median of each figure."""
    return Asked(*(statistics.median(getattr(turn, name) for turn in turns) for name in Asked.__dataclass_fields__))


def table(title: str, ways: list[Way], path: str, tokens: Path | None) -> None:
    """Ask all ways in turn, for each number of connections, and print them beside the first."""
    print(f"\n{title:38}{'a second':>10}{'p50 ms':>9}{'p99 ms':>9}{'of direct':>11}{'CPU µs':>9}")
    for lines in LINES:
        asked = in_turns(ways, path, lines, tokens)
        direct = next(iter(asked.values()))
        print(f"{lines} connections")
        for name, turns in asked.items():
            one = middle(turns)
            beside = ratio(turns, direct)
            print(f"  {name:36}{one.a_second:10.0f}{one.p50:9.2f}{one.p99:9.2f}{beside:11.2f}{one.cpu:9.0f}")
        if "nginx" in asked and "the gateway over HTTP" in asked:
            ours, theirs = asked["the gateway over HTTP"], asked["nginx"]
            cpu = middle(theirs).cpu / middle(ours).cpu
            print(f"  {'the gateway of nginx':36}{'':28}{ratio(ours, theirs):11.2f}{cpu:9.2f}")


def home(server: Server, token: str) -> None:
    """`/v1/home` beside what it is made of, one caller after the other."""
    parts = {
        "plans": ["/v1/plans"],
        "live lessons": ["/v1/live-lessons?status=live&status=paused&status=scheduled&limit=5"],
        "courses": ["/v1/courses?sort=new&limit=6"],
        "contest": ["/v1/contests?phase=open&limit=1"],
    }
    mine = {
        "membership": ["/v1/me/membership"],
        "coupons": ["/v1/me/coupons?status=issued"],
        "check-in": ["/v1/me/check-ins"],
    }
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
        contests = client.get("/v1/contests?phase=open&limit=1").json()["items"]
        if contests:
            parts["contest"].append(f"/v1/contests/{contests[0]['id']}/leaderboard?limit=3")

        def median(paths: list[str], headers: dict[str, str], pause: float = 0.0, turns: int = HOME_TURNS) -> float:
            took = []
            for _ in range(turns):
                time.sleep(pause)
                began = time.perf_counter()
                for path in paths:
                    client.get(path, headers=headers).raise_for_status()
                took.append(time.perf_counter() - began)
            return statistics.median(took) * 1000

        bearer = {"Authorization": f"Bearer {token}"}
        print(f"\n{'home, milliseconds (median)':38}{'alone':>10}{'of slowest':>12}")
        times = {name: median(paths, {}) for name, paths in parts.items()}
        own = {name: median(paths, bearer) for name, paths in mine.items()}
        for name, took in (times | own).items():
            print(f"  {name:36}{took:10.2f}")
        slowest = max(times, key=lambda name: times[name])
        for name, took, most in (
            ("home, anybody", median(["/v1/home"], {}), times[slowest]),
            ("home, a member", median(["/v1/home"], bearer), max((times | own).values())),
            *(
                # A server that has rested is slower: the part rests as long.
                (f"home, {said}", median(["/v1/home"], {}, pause, RESTS), median(parts[slowest], {}, pause, RESTS))
                for said, pause in (("asked again after a second", 1.1), ("nobody asked for four seconds", 4.0))
            ),
        ):
            print(f"  {name:36}{took:10.2f}{took / most:12.2f}")


def main() -> None:
    """Run it."""
    if (missing := ready()) is not None:
        sys.exit(missing)
    one, members, over, empty, over_empty, *ports = free_ports(9)
    with stage(one) as on:
        whole, direct = on.whole(), on.direct(members)
        command = uvicorn_command("gateway.app:app", "127.0.0.1", over)
        split = on.begin(command, gateway_environment(on.common, members), over, "/healthz", on.log)
        file = on.sign_in(members)
        reads = [Way("direct", direct, idle_share(direct)), Way("the gateway in one process", whole, idle_share(whole))]
        reads.append(Way("the gateway over HTTP", split, idle_share(split)))
        if shutil.which("nginx"):
            hello = on.begin(nginx(on.folder, "empty", EMPTY.format(port=empty)), {}, empty, "/", on.log)
            command = uvicorn_command("gateway.app:app", "127.0.0.1", over_empty)
            bare = on.begin(command, gateway_environment(on.common, empty), over_empty, "/healthz", on.log)
            empties = [Way("direct", hello), Way("the gateway over HTTP", bare)]
            servers = PASSING.format(port=ports[0], target=empty) + PASSING.format(port=ports[1], target=members)
            proxy = on.begin(nginx(on.folder, "nginx", servers), {}, ports[0], "/", on.log)
            empties.append(Way("nginx", proxy))
            reads.append(Way("nginx", Server(proxy.process, ports[1])))
            if shutil.which("haproxy"):
                proxy = on.begin(haproxy(on.folder, {ports[2]: empty, ports[3]: members}), {}, ports[2], "/", on.log)
                empties.append(Way("HAProxy", proxy))
                reads.append(Way("HAProxy", Server(proxy.process, ports[3])))
            else:
                print("HAProxy is left out: it is not installed (Debian: apt-get install haproxy)")
            table("an empty upstream", empties, "/v1/plans", None)
        else:
            print(
                "nginx and what is compared with it are left out: it is not installed (Debian: apt-get install nginx-light)"
            )
        table("membership", reads, "/v1/me/membership", file)
        table("check-ins", reads, "/v1/me/check-ins", file)
        home(whole, file.read_text().split()[0])


if __name__ == "__main__":
    main()
