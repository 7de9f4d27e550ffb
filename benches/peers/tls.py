#!/usr/bin/env python3
"""Thalweg and nginx (and h2o, if it is there) side by side over TLS and HTTP/2: the server's own CPU per request.

One worker each, pinned to one core; the load on another. Servers are measured in turn, round after round, and medians of
the ratios are reported. Measuring works as in run.py.

Needs nginx, wrk, h2load and openssl (Debian: apt-get install nginx wrk nghttp2-client openssl h2o):

    cargo build --release && benches/peers/tls.py
"""

import argparse
import os
import re
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import run  # noqa: E402
from proxy import Proxy  # noqa: E402

CONF = """daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {root}/server.pid;
error_log {root}/error.log;
{user}
events {{ worker_connections {files}; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
    open_file_cache max=1000;
    {extra}
    server {{
        listen 127.0.0.1:{port} ssl{http2} backlog=8192;
        ssl_certificate {folder}/cert.pem;
        ssl_certificate_key {folder}/key.pem;
        ssl_session_cache shared:a:10m;
        root {html};
    }}
}}
"""
H2O = """user: {user}
num-threads: 1
max-connections: {files}
http1-request-timeout: 3600
http2-idle-timeout: 3600
pid-file: {root}/server.pid
error-log: {root}/error.log
file.index: [index.html]
hosts:
  default:
    listen:
      host: 127.0.0.1
      port: {port}
      ssl:
        certificate-file: {folder}/cert.pem
        key-file: {folder}/key.pem
    paths:
      /:
        file.dir: {html}
"""
IDLE = "idle"
# The most memory of an idle connection, as a ratio of nginx's.
IDLE_GOAL = 0.5
# Name, title, the most CPU that Thalweg may take as a ratio of nginx's.
SCENARIOS = [
    ("tls1k", "TLS keep-alive, 1 KiB, 64 connections", 0.75),
    ("tls100k", "TLS keep-alive, 100 KiB, 16 connections", 0.75),
    ("full", "full handshake (P-256, TLS 1.3) and a request", 1.0),
    ("resumed", "resumed handshake (TLS 1.3) and a request", 1 / 1.2),
    ("h2", "HTTP/2 over TLS, 1 KiB, 16 connections with 32 streams", 0.25),
    ("h2c100k", "HTTP/2 over TLS, 100 KiB, 16 connections with 4 streams", 1.0),
]


def start(name, options, folder):
    root = folder / name
    root.mkdir()
    port, files = run.free_port(), min(40000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    extra = ""
    if name == "nginx":
        parts = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        extra = " ".join(f"{one}_temp_path {root}/{one};" for one in parts)
    text = CONF.format(root=root, port=port, files=files, extra=extra, folder=folder, html=folder / "html",
                       http2=" http2", user="user root;" if os.geteuid() == 0 else "")
    binary = {"thalweg": options.binary, "nginx": options.nginx, "h2o": options.h2o}[name]
    arguments = ["-p", f"{root}/", "-c", f"{root}/conf", "-e", f"{root}/error.log"]
    if name == "h2o":
        user = "root" if os.geteuid() == 0 else os.environ.get("USER", "nobody")
        text = H2O.format(root=root, port=port, files=files, folder=folder, html=folder / "html", user=user)
        arguments = ["-c", f"{root}/conf"]
    (root / "conf").write_text(text)
    return Proxy(name, ["taskset", "-c", options.server_core, binary, *arguments], root, port)


def load_wrk(server, path, connections, options):
    command = ["taskset", "-c", options.load_core, "wrk", "-t1", f"-c{connections}", f"-d{options.seconds}s",
               f"https://127.0.0.1:{server.port}{path}"]
    out = subprocess.run(command, capture_output=True, text=True).stdout
    return int(re.search(r"(\d+) requests in", out).group(1))


def load_h2(server, path, connections, streams, options):
    command = ["taskset", "-c", options.load_core, "h2load", f"-c{connections}", f"-m{streams}",
               f"-D{options.seconds}", f"https://127.0.0.1:{server.port}{path}"]
    out = subprocess.run(command, capture_output=True, text=True).stdout
    return int(re.search(r"(\d+) succeeded", out).group(1))


def load_handshakes(server, resumed, options):
    os.sched_setaffinity(0, {int(options.load_core)})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ecdh_curve("prime256v1")
    session, count, end = None, 0, time.monotonic() + options.seconds
    while time.monotonic() < end:
        raw = socket.create_connection(("127.0.0.1", server.port), 5)
        with context.wrap_socket(raw, session=session) as one:
            one.sendall(b"GET /1k.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            while one.recv(65536):
                pass
            if resumed:
                session = one.session
                if count > 0 and not one.session_reused:
                    sys.exit(f"{server.name}: no session was taken up")
        count += 1
    return count


def idle_memory(server, options):
    """Bytes of a server's private memory for each TLS connection that had one request and waits for the next."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    held = []

    def open_some(count):
        for _ in range(count):
            raw = socket.create_connection(("127.0.0.1", server.port), 10)
            one = context.wrap_socket(raw)
            one.sendall(b"GET /1k.bin HTTP/1.1\r\nHost: a\r\n\r\n")
            received = b""
            while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < 1024:
                received += one.recv(65536)
            held.append(one)
        time.sleep(0.5)
        return server.memory_bytes()

    # What the first connections cost once is not theirs.
    before = open_some(100)
    after = open_some(options.idle_connections)
    for one in held:
        one.close()
    return (after - before) / options.idle_connections


def measure(server, scenario, options):
    before = server.cpu_nanoseconds()
    count = {
        "tls1k": lambda: load_wrk(server, "/1k.bin", 64, options),
        "tls100k": lambda: load_wrk(server, "/100k.bin", 16, options),
        "full": lambda: load_handshakes(server, False, options),
        "resumed": lambda: load_handshakes(server, True, options),
        "h2": lambda: load_h2(server, "/1k.bin", 16, 32, options),
        "h2c100k": lambda: load_h2(server, "/100k.bin", 16, 4, options),
    }[scenario]()
    return (server.cpu_nanoseconds() - before) / count / 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[2]
    target = Path(os.environ.get("CARGO_TARGET_DIR", here / "target"))
    parser.add_argument("--binary", default=str(target / "release" / "thalweg"))
    parser.add_argument("--nginx", default="/usr/sbin/nginx")
    parser.add_argument("--h2o", default=shutil.which("h2o"), help="compared with where it is there")
    parser.add_argument("--idle-connections", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--server-core", default="0")
    parser.add_argument("--load-core", default="1")
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        html = folder / "html"
        html.mkdir()
        (html / "1k.bin").write_bytes(os.urandom(1 << 10))
        (html / "100k.bin").write_bytes(os.urandom(100 << 10))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-days", "30", "-subj", "/CN=a"],
                       check=True, capture_output=True)
        names = ["thalweg", "nginx"] + (["h2o"] if options.h2o else [])
        servers = [start(one, options, folder) for one in names]
        print("| scenario | Thalweg µs | nginx µs | ratio | goal | h2o µs |\n|---|---:|---:|---:|---:|---:|")
        try:
            for scenario, title, goal in SCENARIOS:
                if options.only and scenario not in options.only:
                    continue
                rounds = [[measure(one, scenario, options) for one in servers] for _ in range(options.rounds)]
                ratio = statistics.median(one[0] / one[1] for one in rounds)
                own, other, *more = (statistics.median(column) for column in zip(*rounds))
                third = f"{more[0]:.1f}" if more else ""
                print(f"| {title} | {own:.1f} | {other:.1f} | {ratio:.2f} | {goal:.2f} | {third} |", flush=True)
            if not options.only or IDLE in options.only:
                own, other, *more = (idle_memory(one, options) for one in servers)
                third = f"{more[0]:.0f}" if more else ""
                print(f"| memory of an idle TLS connection, in bytes | {own:.0f} | {other:.0f} | {own / other:.2f} | "
                      f"{IDLE_GOAL:.2f} | {third} |", flush=True)
        finally:
            for one in servers:
                one.stop()


if __name__ == "__main__":
    main()
