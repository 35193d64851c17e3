"""Runs commands where nothing is reachable, and counts what they would have reached.

A program: `python network.py REPORT COMMAND...` in namespaces of its own (`unshare -rnm`). The only
interface is loopback. Name lookups, those of native code too, come to a server here that answers
that there is no such name; Python's own connections are written down by a `sitecustomize`.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

SITE = """
import socket, json
_connect, _connect_ex, _look = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo
def _note(what):
    with open({log!r}, "a") as file:
        file.write(json.dumps(str(what)) + "\\n")
def _local(host):
    host = host.decode() if isinstance(host, bytes) else str(host or "localhost")
    return host in ("localhost", "::1", "0.0.0.0", "::") or host.startswith("127.") or host == socket.gethostname()
def connect(self, address):
    if self.family != socket.AF_UNIX and not _local(address[0]): _note(address)
    return _connect(self, address)
def connect_ex(self, address):
    if self.family != socket.AF_UNIX and not _local(address[0]): _note(address)
    return _connect_ex(self, address)
def getaddrinfo(host, *args, **named):
    if not _local(host): _note(host)
    return _look(host, *args, **named)
socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo = connect, connect_ex, getaddrinfo
"""


def raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh22x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS


def serve_names(log: Path) -> None:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))

    def answer() -> None:
        while True:
            asked, client = server.recvfrom(4096)
            parts, place = [], 12
            while asked[place]:
                parts.append(asked[place + 1 : place + 1 + asked[place]].decode())
                place += 1 + asked[place]
            name = ".".join(parts)
            if name.partition(".")[0] not in ("localhost", socket.gethostname()):
                with log.open("a") as file:
                    file.write(json.dumps(name) + "\n")
            header = asked[:2] + b"\x81\x83" + asked[4:6] + bytes(6)
            server.sendto(header + asked[12 : place + 5], client)

    threading.Thread(target=answer, daemon=True).start()


def main() -> int:
    report, command = Path(sys.argv[1]), sys.argv[2:]
    raise_loopback()
    with tempfile.TemporaryDirectory() as folder:
        site, log = Path(folder), Path(folder) / "log"
        log.touch()
        (site / "sitecustomize.py").write_text(SITE.format(log=str(log)))
        (site / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        subprocess.run(
            ["mount", "--bind", str(site / "resolv.conf"), "/etc/resolv.conf"], check=True
        )
        serve_names(log)
        path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        code = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}).returncode
        report.write_text(log.read_text())
    return code


if __name__ == "__main__":
    sys.exit(main())
