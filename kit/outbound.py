"""Outgoing calls to addresses that others choose: never into a private network, whatever a name resolves to."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final
from urllib.parse import urlsplit

import httpcore

from kit.settings import Network

# The IANA special-purpose registries (RFC 6890 and its successors), written out: `ipaddress.is_global` says of
# multicast, NAT64 and 6to4 that they lead outside.
_CLOSED_4: Final = tuple(
    ip_network(item)
    for item in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_OPEN_6: Final = ip_network("2000::/3")
_CLOSED_6: Final = tuple(
    ip_network(item) for item in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
LONGEST_ANSWER: Final = 4096
LOOK_UPS: Final = 256
"""How many names may be looked up at once; one whose server is silent is looked up for half a minute."""
CONNECTIONS: Final = 64
"""How many to one host and port at a time."""
KEEP_S: Final = 4.0
"""Shorter than servers keep idle connections, so that none is used that is about to be closed."""
OTHER_ADDRESS_S: Final = 3.0
"""How long an address is tried while there is another one."""
_THIS_MACHINE: Final = (ip_address("::1"), ip_address("127.0.0.1"))


@cache
def _tls() -> ssl.SSLContext:
    # Reading the trusted authorities takes 30 ms: once a process.
    return ssl.create_default_context()


class AddressRefused(Exception):
    """The address leads into a network that nobody outside may reach through us."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: the status, the headers in small letters, and the beginning of the body."""

    status: int
    headers: dict[str, str]
    body: bytes
    duration_ms: int


class Outbound:
    """A client for such calls; `allowed` are networks that are open although they are private, for development."""

    def __init__(self, allowed: Iterable[Network] = ()) -> None:
        self._allowed = tuple(allowed)
        # One pool of httpcore's looks through all of its connections for every request, so each origin has its own.
        self._origins: dict[tuple[str, str], _Origin] = {}
        self._swept_at = time.monotonic()

    async def close(self) -> None:
        """Close the connections."""
        for origin in self._origins.values():
            await origin.pool.aclose()
        self._origins.clear()

    def _origin(self, url: str) -> "_Origin":
        parts = urlsplit(url)
        key = (parts.scheme, parts.netloc)
        if key not in self._origins:
            network = _GuardedNetwork(self, plain=parts.scheme == "http")
            pool = httpcore.AsyncConnectionPool(
                ssl_context=_tls() if parts.scheme == "https" else None,
                max_connections=CONNECTIONS,
                keepalive_expiry=KEEP_S,
                network_backend=network,
            )
            self._origins[key] = _Origin(pool)
        return self._origins[key]

    async def _sweep(self) -> None:
        """Close what nobody has used for a while."""
        now = time.monotonic()
        if now - self._swept_at < KEEP_S:
            return
        self._swept_at = now
        unused = [key for key, one in self._origins.items() if not one.users and now - one.used_at > KEEP_S]
        for origin in [self._origins.pop(key) for key in unused]:
            await origin.pool.aclose()

    async def check(self, url: str) -> None:
        """Refuse what `post` would refuse, as far as it can be seen now: AddressRefused or ValueError.

        `http:` leads only to networks that are named as allowed. A name that does not resolve now is let through: it is
        looked at again with every connection.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None or parts.fragment:
            raise ValueError("an address is https://host/path, without a user or a fragment")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            async with asyncio.timeout(3):
                found = await resolve(parts.hostname, port)
        except (TimeoutError, OSError, UnicodeError):
            if parts.scheme == "http":
                raise AddressRefused(parts.hostname) from None
            return
        self.require(found, plain=parts.scheme == "http")

    def require(self, addresses: Sequence[str], *, plain: bool) -> None:
        """Refuse unless every one of these addresses may be called; `plain` is http without TLS."""
        for text in addresses:
            address = ip_address(text.partition("%")[0])
            if isinstance(address, IPv6Address) and address.ipv4_mapped:
                address = address.ipv4_mapped
            if address == _THIS_MACHINE[0]:
                # Whoever opens loopback means this machine, whichever way its name resolves.
                address = _THIS_MACHINE[1]
            if any(address in network for network in self._allowed if network.version == address.version):
                continue
            if plain or not _leads_outside(address):
                raise AddressRefused(str(address))

    async def post(self, url: str, headers: dict[str, str], body: bytes, *, seconds: float) -> Reply:
        """Send a body; AddressRefused, TimeoutError, or OSError when there was no answer. Redirects are not followed."""
        await self._sweep()
        started = time.monotonic()
        origin = self._origin(url)
        timeout = {"connect": seconds, "read": seconds, "write": seconds, "pool": seconds}
        try:
            async with (
                asyncio.timeout(seconds),
                origin.used() as pool,
                pool.stream(
                    "POST", url, headers=list(headers.items()), content=body, extensions={"timeout": timeout}
                ) as response,
            ):
                beginning = b""
                async for chunk in response.aiter_stream():
                    beginning += chunk
                    if len(beginning) > LONGEST_ANSWER:
                        break
                took = int((time.monotonic() - started) * 1000)
                told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
                return Reply(response.status, told, beginning[:LONGEST_ANSWER], took)
        except httpcore.TimeoutException as failure:
            raise TimeoutError from failure
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, ssl.SSLError) as failure:
            raise OSError(f"{type(failure).__name__}: {failure}"[:200]) from failure


class _Origin:
    """The connections to one host and port, and whether anybody uses them."""

    def __init__(self, pool: httpcore.AsyncConnectionPool) -> None:
        self.pool = pool
        self.users = 0
        self.used_at = time.monotonic()

    @asynccontextmanager
    async def used(self) -> AsyncIterator[httpcore.AsyncConnectionPool]:
        self.users += 1
        try:
            yield self.pool
        finally:
            self.users -= 1
            self.used_at = time.monotonic()


def _leads_outside(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _CLOSED_4)
    return address in _OPEN_6 and not any(address in network for network in _CLOSED_6)


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name; OSError when it has none.

    Each look-up has a thread of its own: the event loop's are few, and some names whose servers are silent would keep
    all of them, and every other name with them.
    """
    with suppress(OSError):
        return _addresses(host, port, socket.AI_NUMERICHOST)
    if len(_looking) >= LOOK_UPS:
        raise OSError("too many names are being looked up")
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def look_up() -> None:
        try:
            found: list[str] | Exception = _addresses(host, port)
        except (OSError, UnicodeError) as failure:
            found = failure
        finally:
            _looking.discard(threading.current_thread())
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_answer, answer, found)

    thread = threading.Thread(target=look_up, name="resolve", daemon=True)
    _looking.add(thread)
    thread.start()
    return await answer


_looking: set[threading.Thread] = set()


def _addresses(host: str, port: int, flags: int = 0) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def _answer(future: "asyncio.Future[list[str]]", found: list[str] | Exception) -> None:
    if future.done():
        return
    if isinstance(found, Exception):
        future.set_exception(found)
    else:
        future.set_result(found)


class _GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to an address that was looked at, and to no other: between look and connection a name cannot change."""

    def __init__(self, guard: Outbound, *, plain: bool) -> None:
        self._guard = guard
        self._plain = plain
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface's own
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, refuse or connect."""
        try:
            addresses = await resolve(host, port)
        except (OSError, UnicodeError) as failure:
            raise httpcore.ConnectError(str(failure)) from failure
        self._guard.require(addresses, plain=self._plain)
        for address in addresses[:-1]:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._connect(address, port, OTHER_ADDRESS_S, local_address, socket_options)
        return await self._connect(addresses[-1], port, timeout, local_address, socket_options)

    async def _connect(
        self, address: str, port: int, seconds: float | None, *options: Any
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._network.connect_tcp(address, port, seconds, *options)
        try:
            peer = stream.get_extra_info("server_addr")
            self._guard.require([str(peer[0])], plain=self._plain)
        except BaseException:
            await stream.aclose()
            raise
        return stream

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
