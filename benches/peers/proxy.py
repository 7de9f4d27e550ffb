#!/usr/bin/env python3
"""Thalweg, nginx and HAProxy side by side as reverse proxies: the proxy's own CPU per request.

One worker each, pinned to one core; the upstream and the load share another. The upstream is `floor.rs`, which answers from
memory in one write, and for WebSockets an echo loop in this file. Servers are measured in turn, round after round, and
medians are reported. Measuring works as in run.py.

Needs nginx, haproxy and wrk (Debian: apt-get install nginx haproxy wrk) and the upstream:

    cargo build --release && cargo build --release --bench floor && benches/peers/proxy.py
"""

import argparse
import glob
import os
import resource
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import run  # noqa: E402

NGINX = """daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {root}/server.pid;
error_log {root}/error.log;
{user}
events {{ worker_connections {files}; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
    {extra}
    map $http_upgrade $asks {{ default upgrade; "" ""; }}
    upstream canned {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=8192;
        location / {{
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_pass http://canned;
        }}
        location /echo {{
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $asks;
            proxy_read_timeout 1h;
            proxy_pass http://127.0.0.1:{echo};
        }}
    }}
}}
"""

HAPROXY = """global
    nbthread 1
    maxconn 8000
defaults
    mode http
    timeout connect 10s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
    http-reuse always
frontend in
    bind 127.0.0.1:{port} backlog 8192
    use_backend echo if {{ path /echo }}
    default_backend canned
backend canned
    server one 127.0.0.1:{upstream} pool-max-conn 256
backend echo
    server one 127.0.0.1:{echo}
"""

# Name, title, the most CPU that Thalweg may take as a ratio of nginx's, path, client connections.
SCENARIOS = [
    ("1k", "1 KiB answer, 64 client connections", 0.80, "/1k.bin", 64),
    ("1m", "1 MiB answer, 16 client connections", 0.80, "/1m.bin", 16),
    ("echo", "1,000 WebSocket echo connections, a message", 0.80, "/echo", 1000),
]
HANDSHAKE = (b"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
SWITCHED = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
# A masked text frame of 100 bytes; behind the handshake all of them only carry bytes.
FRAME = b"\x81\xe4\x01\x02\x03\x04" + bytes(100)


class Proxy(run.Server):
    """A running proxy; `measure` of run.py needs no more than a server's."""

    def __init__(self, name, command, root, port):
        self.name, self.root, self.port = name, root, port
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=open(root / "stderr", "wb"), start_new_session=True)
        deadline = time.monotonic() + 15
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    sys.exit(f"{name} does not start: {(root / 'stderr').read_text()}")
                time.sleep(0.02)


def start(name, options, folder, upstream, echo):
    root = folder / name
    root.mkdir()
    port, files = run.free_port(), min(40000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    extra = ""
    if name == "nginx":
        parts = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        extra = " ".join(f"{one}_temp_path {root}/{one};" for one in parts)
    text = (HAPROXY if name == "haproxy" else NGINX).format(
        root=root, port=port, files=files, upstream=upstream, echo=echo, extra=extra,
        user="user root;" if os.geteuid() == 0 else "")
    (root / "conf").write_text(text)
    binary = {"thalweg": options.binary, "nginx": options.nginx, "haproxy": options.haproxy}[name]
    arguments = ["-db", "-f", f"{root}/conf"] if name == "haproxy" else \
        ["-p", f"{root}/", "-c", f"{root}/conf", "-e", f"{root}/error.log"]
    return Proxy(name, ["taskset", "-c", options.server_core, binary, *arguments], root, port)


def start_upstream(options, folder):
    """The canned answers of floor.rs, for every path."""
    html = folder / "html"
    html.mkdir()
    (html / "1k.bin").write_bytes(bytes(1 << 10))
    (html / "1m.bin").write_bytes(bytes(1 << 20))
    port = run.free_port()
    (folder / "floor.conf").write_text(f"listen 127.0.0.1:{port};\nroot {html};\n")
    command = ["taskset", "-c", options.load_core, options.upstream, "-c", str(folder / "floor.conf")]
    process = subprocess.Popen(command, start_new_session=True)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process, port
        except OSError:
            time.sleep(0.02)
    sys.exit("the upstream does not start")


def start_echo(options):
    """A process that switches protocols and sends back whatever it gets."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    child = os.fork()
    if child:
        return child, listener.getsockname()[1]
    os.sched_setaffinity(0, {int(options.load_core)})
    poll, sockets = select.epoll(), {}
    poll.register(listener, select.EPOLLIN)
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                one, _ = listener.accept()
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sockets[one.fileno()] = [one, False]
                poll.register(one, select.EPOLLIN)
                continue
            entry = sockets[number]
            try:
                data = entry[0].recv(65536)
                if data:
                    entry[0].sendall(data if entry[1] else SWITCHED)
                    entry[1] = True
                    continue
            except OSError:
                pass
            sockets.pop(number)[0].close()


def load_echo(server, count, core, seconds):
    """Every connection sends a message, waits for its echo, and sends the next; CPU microseconds per message."""
    os.sched_setaffinity(0, {int(core)})
    connections, poll = {}, select.epoll()
    for _ in range(count):
        one = socket.create_connection(("127.0.0.1", server.port), 5)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.sendall(HANDSHAKE)
        head = b""
        while b"\r\n\r\n" not in head:
            head += one.recv(4096)
        if not head.startswith(b"HTTP/1.1 101"):
            sys.exit(f"{server.name}: no upgrade: {head[:80]!r}")
        connections[one.fileno()] = one
        poll.register(one, select.EPOLLIN)
    for one in connections.values():
        one.sendall(FRAME)
    before, messages, end = server.cpu_nanoseconds(), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for number, _ in poll.poll(1):
            one = connections[number]
            if len(one.recv(4096)) == len(FRAME):
                messages += 1
            one.sendall(FRAME)
    spent = server.cpu_nanoseconds() - before
    for one in connections.values():
        one.close()
    os.sched_setaffinity(0, range(os.cpu_count()))
    return messages / seconds, spent / 1000 / max(messages, 1), ""


def load(server, scenario, options, seconds):
    name, _, _, path, connections = scenario
    if name == "echo":
        return load_echo(server, connections, options.load_core, seconds)
    wrk = run.Scenario(name, "", None, path, connections=connections)
    return run.load(server, wrk, options.load_core, seconds)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(run.REPOSITORY / "target/release/thalweg"))
    parser.add_argument("--upstream", help="floor; default: the newest in target/release/deps")
    parser.add_argument("--nginx", default="/usr/sbin/nginx")
    parser.add_argument("--haproxy", default="/usr/sbin/haproxy")
    parser.add_argument("--scenario", action="append", choices=[one[0] for one in SCENARIOS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--server-core", default="0")
    parser.add_argument("--load-core", default="1")
    options = parser.parse_args()
    if not options.upstream:
        found = [one for one in glob.glob(str(run.REPOSITORY / "target/release/deps/floor-*")) if "." not in Path(one).name]
        if not found:
            sys.exit("floor is not built: cargo build --release --bench floor")
        options.upstream = max(found, key=os.path.getmtime)
    return options


def main():
    options = arguments()
    wanted = [one for one in SCENARIOS if not options.scenario or one[0] in options.scenario]
    print(f"machine: {run.machine()}")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        os.chmod(folder, 0o755)
        upstream, port = start_upstream(options, folder)
        echo, echo_port = start_echo(options)
        names = [name for name in ("nginx", "haproxy", "thalweg")
                 if Path({"nginx": options.nginx, "haproxy": options.haproxy, "thalweg": options.binary}[name]).exists()]
        servers = []
        try:
            for name in names:
                servers.append(start(name, options, folder, port, echo_port))
            for scenario in wanted:
                cpu, rate = {name: [] for name in names}, {name: [] for name in names}
                for number in range(options.rounds):
                    order = servers if number % 2 == 0 else servers[::-1]
                    for server in order:
                        if number == 0:
                            load(server, scenario, options, 1)  # warms up, not counted
                        per_second, spent, errors = load(server, scenario, options, options.seconds)
                        if per_second is None or errors:
                            sys.exit(f"{server.name}, {scenario[0]}: {errors}")
                        cpu[server.name].append(spent)
                        rate[server.name].append(per_second)
                median = {name: statistics.median(values) for name, values in cpu.items()}
                cells = " | ".join(f"{median[name]:.2f}" for name in names)
                ratio = median.get("thalweg", 0) / median["nginx"] if "nginx" in median else float("nan")
                verdict = "" if ratio <= scenario[2] else "missed"
                rates = ", ".join(f"{name} {statistics.median(rate[name]):,.0f}/s" for name in names)
                print(f"| {scenario[1]} | {cells} | {ratio:.2f} | {scenario[2]:.2f} | {verdict} |  ({rates})", flush=True)
        finally:
            for server in servers:
                server.stop()
            os.killpg(upstream.pid, signal.SIGKILL)
            os.kill(echo, signal.SIGKILL)


if __name__ == "__main__":
    main()
