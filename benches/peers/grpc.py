#!/usr/bin/env python3
"""Thalweg and nginx side by side with calls of gRPC (unary) that they pass on: the server's own CPU per call.

One worker each, pinned to one core; the load and the upstream, which is an nginx that answers at once, on another. Servers
are measured in turn, round after round, and medians of the ratios are reported. Measuring works as in run.py.

Needs nginx and h2load (Debian: apt-get install nginx nghttp2-client):

    cargo build --release && benches/peers/grpc.py
"""

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
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
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
    {extra}
    {http}
}}
"""
# The message has 100 bytes each way. (An answer in nginx's own words: `return` gives a length, the status a trailer.)
UPSTREAM = """server {{
        listen 127.0.0.1:{port} http2 backlog=8192;
        default_type application/grpc;
        add_trailer grpc-status 0;
        location / {{ return 200 "{body}"; }}
    }}"""
PROXY = """upstream calls {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} http2 backlog=8192;
        http2_max_concurrent_streams 1000;
        location / {{ grpc_pass grpc://calls; }}
    }}"""
# Name, title, connections, streams on each.
SCENARIOS = [
    ("many", "unary, 16 connections with 8 streams", 16, 8),
    ("single", "unary, 16 connections with 1 stream", 16, 1),
    ("wide", "unary, 2 connections with 100 streams", 2, 100),
]


def start(name, binary, http, core, folder, **values):
    root = folder / name
    root.mkdir()
    port, files = run.free_port(), min(40000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    extra = ""
    if binary.endswith("nginx"):
        parts = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        extra = " ".join(f"{one}_temp_path {root}/{one};" for one in parts)
    text = CONF.format(root=root, files=files, extra=extra, http=http.format(port=port, **values),
                       user="user root;" if os.geteuid() == 0 else "")
    (root / "conf").write_text(text)
    arguments = ["-p", f"{root}/", "-c", f"{root}/conf", "-e", f"{root}/error.log"]
    return Proxy(name, ["taskset", "-c", core, binary, *arguments], root, port)


def measure(server, connections, streams, folder, options):
    before = server.cpu_nanoseconds()
    command = ["taskset", "-c", options.load_core, "h2load", f"-c{connections}", f"-m{streams}",
               f"-D{options.seconds}", "-d", folder / "message", "-H", "content-type: application/grpc",
               "-H", "te: trailers", f"http://127.0.0.1:{server.port}/echo.Echo/Unary"]
    out = subprocess.run(command, capture_output=True, text=True).stdout
    total, good = (int(re.search(rf"(\d+) {word}", out).group(1)) for word in ("done", "2xx"))
    if total == 0 or good < total * 0.99:
        errors = (server.root / "error.log").read_text()[-2000:]
        sys.exit(f"{server.name}: {out}\n{errors}")
    return (server.cpu_nanoseconds() - before) / good / 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[2]
    target = Path(os.environ.get("CARGO_TARGET_DIR", here / "target"))
    parser.add_argument("--binary", default=str(target / "release" / "thalweg"))
    parser.add_argument("--nginx", default="/usr/sbin/nginx")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--server-core", default="0")
    parser.add_argument("--load-core", default="1")
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "message").write_bytes(b"\0\0\0\0\x5f" + b"x" * 95)
        upstream = start("upstream", options.nginx, UPSTREAM, options.load_core, folder, body="x" * 100)
        servers = [start(one, binary, PROXY, options.server_core, folder, upstream=upstream.port)
                   for one, binary in (("thalweg", options.binary), ("nginx", options.nginx))]
        print("| scenario | Thalweg µs | nginx µs | ratio |\n|---|---|---|---|")
        try:
            for scenario, title, connections, streams in SCENARIOS:
                if options.only and scenario not in options.only:
                    continue
                rounds = [[measure(one, connections, streams, folder, options) for one in servers]
                          for _ in range(options.rounds)]
                ratio = statistics.median(a / b for a, b in rounds)
                own, other = (statistics.median(column) for column in zip(*rounds))
                print(f"| {title} | {own:.1f} | {other:.1f} | {ratio:.2f} |", flush=True)
        finally:
            for one in [*servers, upstream]:
                one.stop()


if __name__ == "__main__":
    main()
