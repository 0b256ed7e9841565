"""Calls to addresses that others choose: which are open, whatever they are written like, and what a silent name costs."""

import asyncio
import socket
import threading
from ipaddress import ip_network
from typing import Any

import pytest

from kit.outbound import AddressRefused, Outbound

CLOSED = """
    0.0.0.0 10.0.0.1 100.64.0.1 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.2.1
    192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
    2130706433 0x7f000001 0x7f.1 0177.0.0.1 017700000001 127.1 127.0.1 0 0xa.0.0.1 012.0.0.1 2852039166
    [::] [::1] [::ffff:127.0.0.1] [::ffff:10.0.0.1] [::ffff:a9fe:a9fe] [::127.0.0.1] [fe80::1] [fc00::1] [fd12::1] [ff02::1]
    [64:ff9b::7f00:1] [64:ff9b::169.254.169.254] [64:ff9b:1::1] [2002:7f00:1::] [2002:a00:1::1] [2001::1] [2001:db8::1]
    [3fff::1] [5f00::1] [100::1] [::ffff:0:127.0.0.1]
"""
OPEN = ("1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "[2606:4700:4700::1111]", "[::ffff:8.8.8.8]", "134744072")


async def test_no_way_of_writing_it_leads_into_a_private_network() -> None:
    outbound = Outbound()
    for host in CLOSED.split():
        with pytest.raises(AddressRefused):
            await outbound.check(f"https://{host}/hook")
    for host in OPEN:
        await outbound.check(f"https://{host}/hook")
        with pytest.raises(AddressRefused):
            await outbound.check(f"http://{host}/hook")
    for url in (
        "ftp://8.8.8.8/",
        "https:///hook",
        "https://a@8.8.8.8/",
        "https://8.8.8.8/#x",
        "https://8.8.8.8:99999/",
    ):
        with pytest.raises(ValueError, match=r"address|[Pp]ort"):
            await outbound.check(url)
    await outbound.close()


async def test_what_is_refused_at_first_is_refused_at_the_connection_too(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    closed, opened = Outbound(), Outbound([ip_network("127.0.0.0/8")])
    for host in ("127.0.0.1", "2130706433", "0177.1", "[::ffff:127.0.0.1]", "localhost"):
        for scheme in ("http", "https"):
            with pytest.raises(AddressRefused):
                await closed.post(f"{scheme}://{host}:{port}/", {"host": "x"}, b"{}", seconds=5)
    assert heard == []
    # Loopback is opened by a setting; a redirect is an answer like any other.
    reply = await opened.post(f"http://localhost:{port}/", {"host": "x", "content-length": "2"}, b"{}", seconds=5)
    assert (reply.status, len(heard)) == (307, 1)

    # A name that was public when it was looked at, and is private when it is called.
    answers = [["8.8.8.8"], ["10.0.0.1"]]

    async def rebinding(_: str, __: int) -> list[str]:
        return answers.pop(0)

    monkeypatch.setattr("kit.outbound.resolve", rebinding)
    await closed.check("https://rebind.example/")
    with pytest.raises(AddressRefused):
        await closed.post("https://rebind.example/", {"host": "x"}, b"{}", seconds=5)
    # One private address among public ones is enough.
    answers.append(["8.8.8.8", "192.168.0.1"])
    with pytest.raises(AddressRefused):
        await closed.check("https://mixed.example/")
    # The first address of a name is dead: the next one is called.
    answers.append(["127.0.0.9", "127.0.0.1"])
    reply = await opened.post(f"http://two.example:{port}/", {"host": "x", "content-length": "2"}, b"{}", seconds=5)
    assert (reply.status, len(heard)) == (307, 2)
    await closed.close()
    await opened.close()
    server.close()


async def test_names_whose_servers_are_silent_keep_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    silence = threading.Event()
    known = socket.getaddrinfo

    def look_up(host: str, *rest: Any, **more: Any) -> Any:
        if host.startswith("silent") and not more.get("flags"):
            silence.wait(10)
        return known("8.8.8.8" if host.endswith(".example") and not more.get("flags") else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    outbound = Outbound()
    waiting = [asyncio.create_task(outbound.check(f"https://silent-{number}.example/")) for number in range(100)]
    await asyncio.sleep(0)
    await asyncio.wait_for(outbound.check("https://quick.example/"), 2)
    assert not any(task.done() for task in waiting)
    silence.set()
    await asyncio.gather(*waiting)
    await outbound.close()
