"""The edge: nginx's configuration from the route table, which sends each prefix straight to its service.

Authentication and the limits on codes, accounts and failures are the services' own; nginx holds the limits per address,
bodies, heads and slow callers. What it does not know, or could be read in two ways, goes to the gateway and is judged
there: unknown paths, preflights, composites, documents.
"""

import json
import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from typing import Final
from urllib.parse import urlsplit

from gateway.front import EXPOSED, NO_PAGE, PAGE, SECURITY, SECURITY_IN_PRODUCTION
from gateway.inbound import CLIENT_ADDRESS
from gateway.limits import POLICIES, Policy
from gateway.problems import BadUpstream, UpstreamTimeout
from gateway.proxy import BODY_SECONDS
from gateway.routes import MIB, PLAIN, ROUTES, SERVICES, Route, find
from kit.connection import HEAD_BYTES, HEAD_SECONDS, STALLED_SECONDS, HeadTooLarge, RequestTimeout
from kit.errors import BadRequest, PayloadTooLarge, Problem, TooManyRequests
from kit.http import HEAD_ONLY, ROUTE
from kit.limits import RELAXED_FACTOR
from kit.settings import Settings

MARGIN_S: Final = 10
"""Beyond a route's deadline; together longer than the 15 s between two comments of a silent stream."""
UPSTREAMS: Final = ("gateway", *SERVICES)
REFUSED: Final = "/.refused/"
"""Where nginx finds what it refuses with; whoever asks for it is shown a refusal."""

# What nginx refuses by itself, by the status it gives it: 494 is its own word for a head that is too large.
_REFUSALS: Final[dict[str, Problem]] = {
    "400": BadRequest(),
    "408": RequestTimeout(),
    "413": PayloadTooLarge(),
    "414 494": HeadTooLarge(),
    "429": TooManyRequests(retry_after=1),
    "502": BadUpstream(),
    "504": UpstreamTimeout(),
}
# Read by nobody behind the edge, and never passed on as a caller sent them.
_CLAIMED: Final = (
    *(CLIENT_ADDRESS.decode(), ROUTE.decode(), "X-Real-IP", "X-Client-IP", "X-Original-URL", "X-Rewrite-URL"),
    *("X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Server"),
    *("Forwarded", "Proxy-Connection"),
)
_LOG_LINE: Final = (
    '{"service":"edge","method":"$request_method","status":$status,"seconds":$request_time,"upstream":"$proxy_host",'
    '"request_id":"$heika_request_id","event":"request"}'
)
_ADDRESS: Final = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]+)?|\[[0-9A-Fa-f:.]+\](?::[0-9]+)?")
_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+")
_LISTEN: Final = re.compile(r"[A-Za-z0-9.:*\[\]_ -]+")


def configuration(settings: Settings, addresses: Mapping[str, str], listen: str = "8080") -> str:
    """The whole nginx.conf; `addresses` are `http://host:port` of the gateway and every service. ValueError names a bad one."""
    if not _LISTEN.fullmatch(listen):
        raise ValueError(f"{listen!r} is nothing to listen on, such as 8080 or '443 ssl http2'")
    limits = _Limits(settings)
    return "\n".join(
        [
            "# Written by `python -m onebox edge` from gateway/routes.py and the settings; change those, not this.",
            "# What a site adds, such as ssl_certificate, goes into heika.d beside this file.",
            "worker_processes auto;",
            "error_log stderr crit;",
            "events { worker_connections 8192; }",
            "http {",
            *_indented(_site(settings, addresses)),
            *_indented(_maps(settings)),
            *_indented(limits.zones()),
            "  server {",
            f"    listen {listen};",
            *_indented(_server(limits, settings), 4),
            "  }",
            "}",
            "",
        ]
    )


def _indented(lines: Iterator[str], by: int = 2) -> Iterator[str]:
    return (" " * by + line if line else "" for line in lines)


def _site(settings: Settings, addresses: Mapping[str, str]) -> Iterator[str]:
    for name in UPSTREAMS:
        yield f"upstream {name} {{ server {_host(name, addresses)}; keepalive 64; }}"
    for proxy in settings.trusted_proxies:
        yield f"set_real_ip_from {ip_network(proxy, strict=False)};"
    if settings.trusted_proxies:
        yield "real_ip_header X-Forwarded-For;"
        yield "real_ip_recursive on;"
    yield from (
        "server_tokens off;",
        "default_type application/problem+json;",
        "tcp_nodelay on;",
        "keepalive_timeout 75s;",
        "gzip on;",
        "gzip_comp_level 5;",
        "gzip_min_length 1024;",
        "gzip_proxied any;",
        "gzip_vary on;",
        "gzip_types application/json application/problem+json text/csv text/calendar text/plain;",
        # One line for each answer that is not a service's own; neither query strings nor addresses.
        f"log_format heika escape=json '{_LOG_LINE}';",
        "access_log /dev/stdout heika if=$heika_own_answer;",
        "include heika.d/*.conf;",
    )


def _host(name: str, addresses: Mapping[str, str]) -> str:
    parts = urlsplit(addresses[name])
    if parts.scheme != "http" or not _ADDRESS.fullmatch(parts.netloc) or parts.path not in ("", "/"):
        raise ValueError(f"{addresses[name]!r} is no address of {name}, such as http://{name}:8000")
    return parts.netloc


def _maps(settings: Settings) -> Iterator[str]:
    plain = PLAIN.pattern.decode()
    yield f'map $request_uri $heika_plain {{ "~^(?:/\\.well-known)?{plain}(?:\\?|$)" 1; default 0; }}'
    # Looked at again when a refusal has become a page of ours, which is no reason to ask the gateway.
    yield (
        f'map "$request_method:$heika_plain:$uri" $heika_to_gateway '
        f'{{ volatile; "~:{re.escape(REFUSED)}" 0; ~^OPTIONS: 1; ~^[A-Z]+:0: 1; default 0; }}'
    )
    # Services answer HEAD as GET, and are told, so that nothing is used up.
    yield "map $request_method $heika_method { HEAD GET; default $request_method; }"
    yield 'map $request_method $heika_head { HEAD 1; default ""; }'
    yield 'map $http_upgrade $heika_connection { ~*^websocket$ upgrade; default ""; }'
    yield 'map $http_upgrade $heika_upgrade { ~*^websocket$ websocket; default ""; }'
    yield 'map $http_x_request_id $heika_request_id { "~^[!#-\\[\\]-~]{1,128}$" $http_x_request_id; default $request_id; }'
    yield 'map $http_accept_language $heika_english { "~*^\\s*en" 1; default 0; }'
    yield 'map $upstream_status $heika_own_answer { "" 1; ~^50[24] 1; default 0; }'
    yield "map $http_origin $heika_known_origin {"
    for origin in settings.allowed_origins:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} in HEIKA_ALLOWED_ORIGINS is no origin, such as https://h5.example.com")
        yield f'  "{origin}" $http_origin;'
    yield '  default "";'
    yield "}"
    # What whoever answered has said stands; only what it left out is added.
    for variable, _, said, values in _added(settings):
        yield f'map "{said}" ${variable} {{ {values}; default ""; }}'


def _added(settings: Settings) -> Iterator[tuple[str, str, str, str]]:
    """Variable, header, what it depends on, and its values: what an answer has that did not bring it along."""
    pairs = SECURITY if settings.sandbox else SECURITY_IN_PRODUCTION
    found = [(name.decode().title(), "", f'~^: "{value.decode()}"') for name, value in pairs]
    page, other = (f'"{value.decode()}"' for _, value in (PAGE, NO_PAGE))
    found += [
        ("Content-Security-Policy", "$upstream_http_content_type", f"~^:text/html {page}; ~^: {other}"),
        ("X-Request-Id", "", "~^: $heika_request_id"),
        ("Cache-Control", "$http_authorization", '~^:. "private, no-store"'),
        ("Retry-After", "$status", "~^:429 1"),
        ("Access-Control-Allow-Origin", "$heika_known_origin", "~^:. $http_origin"),
        ("Access-Control-Allow-Credentials", "$heika_known_origin", "~^:. true"),
        ("Access-Control-Expose-Headers", "$heika_known_origin", f'~^:. "{", ".join(EXPOSED)}"'),
    ]
    if settings.allowed_origins:
        found.append(("Vary", "", '~*origin ""; ~. Origin'))
    for name, other_said, values in found:
        word = name.lower().replace("-", "_")
        yield f"heika_{word}", name, f"$upstream_http_{word}:{other_said}", values


class _Limits:
    """The limits per address; those per caller are the gateway's, which nginx, not knowing callers, cannot hold."""

    def __init__(self, settings: Settings) -> None:
        factor = RELAXED_FACTOR if settings.limits == "relaxed" else 1
        by_address: dict[str, Policy] = {
            name: policy for name, policies in POLICIES.items() for policy in policies if policy.per == "address"
        }
        self._times = {} if settings.limits == "off" else {name: one.times * factor for name, one in by_address.items()}

    def zones(self) -> Iterator[str]:
        """What is counted, for http."""
        yield 'map $request_method $heika_writer { ~^(GET|HEAD)$ ""; default $binary_remote_addr; }'
        yield (
            'map "$request_method:$uri" $heika_voter '
            '{ "~^(?!GET|HEAD).*/(?:votes?|upvote)$" $binary_remote_addr; default ""; }'
        )
        keys = {"codes": "$heika_writer", "coupons": "$heika_writer", "votes": "$heika_voter"}
        for name, times in self._times.items():
            yield f"limit_req_zone {keys.get(name, '$binary_remote_addr')} zone={name}:10m rate={times}r/m;"

    def of(self, route: Route) -> str:
        """What a route is counted in, for its location; votes are told by the end of their path."""
        classes = (
            {"votes", route.limit_class} if route.limit_class == "auth" else {"general", "votes", route.limit_class}
        )
        if route.limit_class == "webhook":
            classes = {"webhook"}
        found = (name for name in self._times if name in classes)
        return "".join(f"limit_req zone={name} burst={self._times[name] - 1} nodelay; " for name in found)


def _server(limits: _Limits, settings: Settings) -> Iterator[str]:
    yield from (
        f"client_header_timeout {HEAD_SECONDS:.0f}s;",
        f"client_body_timeout {BODY_SECONDS:.0f}s;",
        f"send_timeout {STALLED_SECONDS:.0f}s;",
        f"large_client_header_buffers 4 {HEAD_BYTES // 1024}k;",
        f"client_max_body_size {MIB};",
        "limit_req_status 429;",
        "limit_req_log_level info;",
        "proxy_http_version 1.1;",
        "proxy_method $heika_method;",
        "proxy_connect_timeout 1s;",
        "proxy_set_header Host $http_host;",
        "proxy_set_header Connection $heika_connection;",
        "proxy_set_header Upgrade $heika_upgrade;",
        "proxy_set_header X-Forwarded-For $remote_addr;",
        "proxy_set_header X-Request-Id $heika_request_id;",
        f"proxy_set_header {HEAD_ONLY} $heika_head;",
    )
    yield from (f'proxy_set_header {name} "";' for name in _CLAIMED)
    yield f"proxy_hide_header {ROUTE.decode()};"
    yield from (f"add_header {header} ${variable} always;" for variable, header, *_ in _added(settings))
    for statuses, problem in _REFUSALS.items():
        yield f"error_page {statuses} ={problem.status} {REFUSED}{problem.status};"
        yield f"location = {REFUSED}{problem.status} {{"
        yield f"  if ($heika_english) {{ return {problem.status} '{_body(problem, 'en')}'; }}"
        yield f"  return {problem.status} '{_body(problem, 'zh')}';"
        yield "}"
    longest = max(route.deadline for route in ROUTES) + MARGIN_S
    widest = max(route.body_limit for route in ROUTES)
    to_gateway = f"client_max_body_size {widest}; proxy_read_timeout {longest:.0f}s; proxy_pass http://gateway;"
    yield "error_page 418 = @gateway;"
    yield "if ($heika_to_gateway) { return 418; }"
    yield f"location @gateway {{ {to_gateway} }}"
    yield f"location / {{ {to_gateway} }}"
    for route in sorted(ROUTES, key=lambda route: (UPSTREAMS.index(route.service), route.prefix)):
        if route.prefix == "/":
            continue
        inside = to_gateway if route.service == "gateway" else _inside(route, limits)
        yield f"location = {route.prefix} {{ {inside} }}"
        # What is below a divided prefix is other routes', or nobody's.
        if find(f"{route.prefix}/x") is route:
            yield f"location {route.prefix}/ {{ {inside} }}"


def _inside(route: Route, limits: _Limits) -> str:
    words = limits.of(route)
    if route.body_limit != MIB:
        words += f"client_max_body_size {route.body_limit}; "
    if route.prefix.startswith("/v1/admin/"):
        # nginx weakens the tags of what it compresses, and a weak tag is no good for If-Match.
        words += "gzip off; "
    return f"{words}proxy_read_timeout {route.deadline + MARGIN_S:.0f}s; proxy_pass http://{route.service};"


def _body(problem: Problem, language: str) -> str:
    """The refusal as nginx says it, inside single quotes."""
    said = json.dumps(problem.body(language, "$heika_request_id"), ensure_ascii=False)
    if "'" in said:
        raise ValueError(f"{problem.code} cannot be quoted")
    return said
