#!/usr/bin/env python3
"""Thalweg and nginx side by side on one machine: requests per second and server CPU per request.

One worker pinned to one core, the load (wrk) pinned to another, both servers tuned the same and measured in turn,
round after round; medians are reported. Server CPU is what the scheduler itself accounts to the server's threads
(/proc/PID/task/*/schedstat, in nanoseconds), so it does not depend on how fast the load generator is.

The floor is what a bare epoll loop with a canned answer takes (floor.rs), in the same run, if it was built.

Needs nginx and wrk (Debian: apt-get install nginx wrk) and no root. Examples:

    cargo build --release && cargo build --release --bench floor && benches/peers/run.py
    benches/peers/run.py --scenario 1k-64 --scenario 404 --rounds 5 --seconds 3
    benches/peers/run.py --binary /usr/sbin/nginx        # nginx against itself: ratios near 1.00
"""

import argparse
import gzip
import http.client
import json
import os
import platform
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
MANY_FILES = 5000


class Scenario:
    """One kind of load. `goal` is the most CPU per request that Thalweg may take, as a ratio of nginx's, or None."""

    def __init__(self, name, title, goal, path="/", connections=64, headers=(), script=None):
        self.name, self.title, self.goal = name, title, goal
        self.path, self.connections, self.headers, self.script = path, connections, headers, script


SCENARIOS = [
    Scenario("1k-64", "1 KiB file, 64 keep-alive connections", 0.70, "/1k.bin"),
    Scenario("5000-files", "5,000 different 1 KiB files", 0.75, script="files.lua"),
    Scenario("1k-4000", "1 KiB file, 4,000 keep-alive connections", 0.70, "/1k.bin", connections=4000),
    Scenario("404", "404 Not Found, logged", 0.85, "/missing"),
    Scenario("404-quiet", "404 Not Found, log_not_found off", None, "/quiet/missing"),
    Scenario("close", "one connection per request", 0.85, "/1k.bin", headers=("Connection: close",)),
    Scenario("pipelined", "16 requests pipelined", 0.60, "/1k.bin", script="pipeline.lua"),
    Scenario("16k", "16 KiB file", 0.90, "/16k.bin"),
    Scenario("gzip-16k", "16 KiB of text, compressed by gzip", 0.35, "/text/16k.txt", headers=("Accept-Encoding: gzip",)),
    Scenario("100k", "100 KiB file", 0.60, "/100k.bin"),
    Scenario("10m", "10 MiB file", 0.60, "/10m.bin", connections=16),
]
# What a canned answer says nothing about: the work is in making it, or in the log.
NO_FLOOR = ("404", "gzip-16k")
IDLE = "idle"
IDLE_GOAL = 400

# Both programs get this text. A 404 writes its line to the error log, as by default; below /quiet/ it does not, which
# shows the answer alone. nginx's pools, hashes and accept settings are left at their defaults.
CONFIGURATION = """daemon off;
master_process on;
worker_processes 1;
worker_rlimit_nofile {files};
pid {root}/server.pid;
error_log {root}/error.log;
{user}
events {{
    worker_connections {files};
}}
http {{
    types {{ text/html html; text/plain txt; }}
    default_type application/octet-stream;
    access_log off;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_timeout 3600s;
    keepalive_requests 1000000000;
    keepalive_time 24h;
    open_file_cache max=20000 inactive=3600s;
    open_file_cache_valid 3600s;
    open_file_cache_min_uses 1;
    open_file_cache_errors on;
    {extra}
    server {{
        listen 127.0.0.1:{port} backlog=8192;
        root {html};
        location /quiet/ {{
            log_not_found off;
        }}
        location /text/ {{
            gzip on;
            gzip_types text/plain;
        }}
    }}
}}
"""


class Server:
    """A running server: its processes and the CPU time that they have used."""

    def __init__(self, name, binary, folder, html, core, extra, configuration=None):
        self.name, self.binary = name, binary
        self.root = folder / name
        self.root.mkdir()
        self.port = free_port()
        is_nginx = Path(binary).name == "nginx"
        if is_nginx:
            names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            extra += " ".join(f"{one}_temp_path {self.root}/{one};" for one in names)
        files = min(40000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        text = (configuration or CONFIGURATION).format(
            root=self.root, html=html, port=self.port, files=files, extra=extra,
            user="user root;" if os.geteuid() == 0 else "",
        )
        (self.root / "nginx.conf").write_text(text)
        command = ["taskset", "-c", core, binary, "-p", f"{self.root}/", "-c", f"{self.root}/nginx.conf",
                   "-e", f"{self.root}/error.log"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=open(self.root / "stderr", "wb"), start_new_session=True)
        deadline = time.monotonic() + 15
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    said = (self.root / "stderr").read_text() + self.log()
                    self.stop()
                    sys.exit(f"{name} does not start ({' '.join(command)}):\n{said}")
                time.sleep(0.02)
        time.sleep(0.2)

    def log(self):
        try:
            return (self.root / "error.log").read_text()
        except OSError:
            return ""

    def processes(self):
        """The started process and all its descendants."""
        found, ahead = [], [self.process.pid]
        while ahead:
            pid = ahead.pop()
            found.append(pid)
            for task in threads(pid):
                try:
                    children = Path(f"/proc/{pid}/task/{task}/children").read_text().split()
                    ahead.extend(int(child) for child in children)
                except OSError:
                    pass
        return found

    def cpu_nanoseconds(self):
        total = 0
        for pid in self.processes():
            for task in threads(pid):
                try:
                    total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
                except OSError:
                    pass
        return total

    def memory_bytes(self):
        """Resident memory of all processes, anonymous and private (not the shared program text)."""
        total = 0
        for pid in self.processes():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Private_Dirty:", "Private_Clean:", "Shared_Dirty:")):
                    total += int(line.split()[1]) * 1024
        return total

    def stop(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def newest_floor(binary):
    """The event loop with a canned answer (floor.rs) that was built beside `binary` last, or None."""
    found = [path for path in Path(binary).resolve().parent.glob("deps/floor-*") if not path.suffix]
    return str(max(found, key=lambda path: path.stat().st_mtime)) if found else None


def threads(pid):
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def make_site(html):
    """Files with bytes that no one compresses, the same in each run."""
    html.mkdir()
    block = bytes((i * 131 + (i >> 8) * 17) & 255 for i in range(65536))
    for name, size in (("1k.bin", 1 << 10), ("16k.bin", 16 << 10), ("100k.bin", 100 << 10), ("10m.bin", 10 << 20)):
        (html / name).write_bytes((block * (size // len(block) + 1))[:size])
    text = html / "text"
    text.mkdir()
    (text / "16k.txt").write_text(prose(16 << 10))
    many = html / "many"
    many.mkdir()
    for number in range(MANY_FILES):
        (many / f"{number}.bin").write_bytes(block[number % 1024:][:1024])
    (html / "index.html").write_text("<!doctype html><title>bench</title>")


def prose(length):
    """Text that compresses about as well as a page does (to a third at level 1), the same in each run."""
    state, words = 1, []
    parts = "ri ver flow ing li ne stone wa ter bank mill weir deep est cur rent of the and in".split()

    def draw(count):
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (state >> 33) % count

    vocabulary = ["".join(parts[draw(len(parts))] for _ in range(1 + draw(3))) for _ in range(600)]
    while sum(map(len, words)) < length:
        words.append(vocabulary[min(draw(600), draw(600))])
    return " ".join(words)[:length]


def load(server, scenario, core, seconds):
    """Runs wrk once; returns requests per second, CPU microseconds per request, and its errors."""
    command = ["taskset", "-c", core, "wrk", "-t1", "-c", str(scenario.connections), "-d", f"{seconds}s",
               "--timeout", "20s"]
    for header in scenario.headers:
        command += ["-H", header]
    if scenario.script:
        command += ["-s", str(HERE / scenario.script)]
    command.append(f"http://127.0.0.1:{server.port}{scenario.path}")
    requests, rate, spent, errors = wrk(server, command, seconds, scenario.name.startswith("404"))
    return (rate, spent / 1000 / requests, errors) if requests else (None, None, errors)


def wrk(server, command, seconds, refused=False):
    """Requests, requests per second and the server's CPU nanoseconds of one run of wrk, and its errors: a status that is
    none of success is one, unless all are to be `refused`."""
    before = server.cpu_nanoseconds()
    result = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 90)
    spent = server.cpu_nanoseconds() - before
    found = re.search(r"(\d+) requests in", result.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", result.stdout)
    if not found or not rate or int(found[1]) == 0:
        return 0, 0.0, spent, (result.stdout + result.stderr).strip()
    errors = []
    for line in result.stdout.splitlines():
        if "Socket errors" in line or ("Non-2xx" in line and not refused):
            errors.append(line.strip())
    return int(found[1]), float(rate[1]), spent, "; ".join(errors)


def ask(connection, request):
    """Sends a request and reads its answer, by Content-Length; returns head and body."""
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        part = connection.recv(65536)
        if not part:
            raise ConnectionError("closed within a response head")
        answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    parts, left = [body], int(re.search(rb"(?i)content-length: *(\d+)", head)[1]) - len(body)
    while left > 0:
        part = connection.recv(min(left, 1 << 20))
        if not part:
            raise ConnectionError("closed within a response body")
        parts.append(part)
        left -= len(part)
    return head, b"".join(parts)


def check(server, scenario):
    """One request by hand: the answer must be what the scenario is about, or the numbers mean nothing."""
    path = scenario.path if scenario.path != "/" else "/many/0.bin"
    with socket.create_connection(("127.0.0.1", server.port), 5) as one:
        head, body = ask(one, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    wanted = b"404" if scenario.name.startswith("404") else b"200"
    if head.split(b" ")[1:2] != [wanted]:
        sys.exit(f"{server.name}: {path} is answered with {head[:80]!r}")
    if wanted == b"200" and body != (server.root.parent / "html" / path.lstrip("/")).read_bytes():
        sys.exit(f"{server.name}: {path} has the wrong content ({len(body)} bytes)")
    if scenario.headers and scenario.headers[0] == "Accept-Encoding: gzip":
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        client.request("GET", path, headers={"Accept-Encoding": "gzip"})
        if gzip.decompress(client.getresponse().read()) != body:
            sys.exit(f"{server.name}: {path} compressed has the wrong content")
        client.close()


def idle_memory(server, count):
    """Opens `count` keep-alive connections, one request each, and returns the server's bytes per connection."""
    request = b"GET /1k.bin HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n\r\n"

    connections = []
    try:
        for _ in range(50):  # what any first request allocates is not a connection's cost
            one = socket.create_connection(("127.0.0.1", server.port), 5)
            ask(one, request)
            connections.append(one)
        time.sleep(0.3)
        before = server.memory_bytes()
        for _ in range(count):
            # Several source addresses: one has only some 28,000 ports, and earlier scenarios used many.
            one = socket.create_connection(("127.0.0.1", server.port), 5, (f"127.0.0.{2 + len(connections) % 8}", 0))
            ask(one, request)
            connections.append(one)
        time.sleep(0.5)
        return (server.memory_bytes() - before) / count
    finally:
        for one in connections:
            one.close()


def machine():
    """What the numbers were measured on."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / 1048576
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    release = platform.release().partition("-")[0]
    return (f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {release} {platform.machine()}, "
            f"congestion control {control}, load {os.getloadavg()[0]:.1f} at the start")


def version(binary):
    result = subprocess.run([binary, "-v"], capture_output=True, text=True)
    text = (result.stderr + result.stdout).strip()
    return text.splitlines()[0] if text else str(binary)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [scenario.name for scenario in SCENARIOS] + [IDLE]
    parser.add_argument("--binary", default=str(REPOSITORY / "target/release/thalweg"), help="Thalweg, or a stand-in")
    parser.add_argument("--nginx", default=shutil.which("nginx") or "/usr/sbin/nginx")
    parser.add_argument("--floor", help="floor.rs as a program; by default the newest one beside the binary, if any")
    parser.add_argument("--scenario", action="append", choices=names, help="only this one (may be repeated)")
    parser.add_argument("--rounds", type=int, default=3, help="at least 3 for numbers worth reporting")
    parser.add_argument("--seconds", type=int, default=4, help="of load per server and round")
    parser.add_argument("--server-core", default="0")
    parser.add_argument("--load-core", default="1")
    parser.add_argument("--idle-connections", type=int, default=10000)
    parser.add_argument("--no-file-cache", action="store_true", help="turn open_file_cache off for both")
    parser.add_argument("--json", type=Path, help="write the results there as well")
    options = parser.parse_args()
    options.floor = options.floor or newest_floor(options.binary)
    for tool in ("wrk", "taskset", options.nginx, options.binary):
        if not shutil.which(tool):
            sys.exit(f"{tool} is not there")
    if (os.cpu_count() or 1) < 2:
        sys.exit("two cores are needed: one for the server, one for the load")
    return options


def measure(options, servers, scenario):
    """All rounds of one scenario; the order of the servers alternates from round to round."""
    samples = {server.name: {"rps": [], "cpu": [], "errors": []} for server in servers}
    for server in servers:
        check(server, scenario)
        load(server, scenario, options.load_core, 1)  # warm caches, not counted
    for number in range(options.rounds):
        for server in servers if number % 2 == 0 else servers[::-1]:
            rate, cpu, errors = load(server, scenario, options.load_core, options.seconds)
            if errors:
                samples[server.name]["errors"].append(errors)
            if rate is not None:
                samples[server.name]["rps"].append(rate)
                samples[server.name]["cpu"].append(cpu)
    row = {"scenario": scenario.name, "title": scenario.title, "goal": scenario.goal, "servers": {}}
    for name, taken in samples.items():
        for line in taken["errors"]:
            print(f"  {name}: {line}", file=sys.stderr)
        if not taken["cpu"]:
            sys.exit(f"{name}: no round of {scenario.name} succeeded")
        row["servers"][name] = {"rps": statistics.median(taken["rps"]), "cpu_us": statistics.median(taken["cpu"]),
                                "cpu_us_rounds": taken["cpu"], "rps_rounds": taken["rps"], "errors": taken["errors"]}
    # Neighbours on the machine disturb whole stretches of time: the ratio is taken round by round.
    both = zip(samples["thalweg"]["cpu"], samples["nginx"]["cpu"])
    row["ratio"] = statistics.median(ours / theirs for ours, theirs in both)
    row["pass"] = scenario.goal is None or row["ratio"] <= scenario.goal
    return row


def markdown(report):
    lines = [f"{report['thalweg']} and {report['nginx']}", "", report["machine"], "",
             f"{report['rounds']} rounds of {report['seconds']} s each, medians; `{report['command']}`", ""]
    rows = [row for row in report["results"] if row["scenario"] != IDLE]
    if rows:
        lines += ["| scenario | nginx req/s | Thalweg req/s | nginx CPU µs/req | Thalweg CPU µs/req | floor | ratio | goal | |",
                  "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"]
    for row in rows:
        theirs, ours = row["servers"]["nginx"], row["servers"]["thalweg"]
        floor = f"{row['servers']['floor']['cpu_us']:.2f}" if "floor" in row["servers"] else ""
        goal, mark = "", ""  # without a goal, a row is there to be read
        if row["goal"] is not None:
            goal, mark = f"{row['goal']:.2f}", "pass" if row["pass"] else "FAIL"
        lines.append(f"| {row['title']} | {theirs['rps']:,.0f} | {ours['rps']:,.0f} | {theirs['cpu_us']:.2f} | "
                     f"{ours['cpu_us']:.2f} | {floor} | {row['ratio']:.2f} | {goal} | {mark} |")
    for row in report["results"]:
        if row["scenario"] == IDLE:
            lines += ["", f"Memory per idle keep-alive connection ({row['connections']:,} of them): "
                          f"nginx {row['nginx']:.0f} bytes, Thalweg {row['thalweg']:.0f} bytes, goal "
                          f"{row['goal']} bytes: {'pass' if row['pass'] else 'FAIL'}"]
    return "\n".join(lines)


def main():
    options = arguments()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wanted = options.scenario or [scenario.name for scenario in SCENARIOS] + [IDLE]
    report = {"machine": machine(), "nginx": version(options.nginx), "thalweg": version(options.binary),
              "rounds": options.rounds, "seconds": options.seconds, "results": [],
              "command": " ".join(["benches/peers/run.py", *sys.argv[1:]])}
    folder = Path(tempfile.mkdtemp(prefix="thalweg-bench-"))
    os.chmod(folder, 0o755)
    servers = []
    try:
        make_site(folder / "html")
        extra = "open_file_cache off; " if options.no_file_cache else ""
        if options.no_file_cache:
            global CONFIGURATION
            CONFIGURATION = "\n".join(line for line in CONFIGURATION.split("\n") if "open_file_cache" not in line)

        def start(name, binary):
            servers.append(Server(name, binary, folder, folder / "html", options.server_core, extra))

        start("nginx", options.nginx)
        start("thalweg", options.binary)
        if options.floor:
            start("floor", options.floor)
        for scenario in SCENARIOS:
            if scenario.name in wanted:
                print(f"{scenario.title} ...", file=sys.stderr, flush=True)
                able = [server for server in servers if server.name != "floor" or scenario.name not in NO_FLOOR]
                report["results"].append(measure(options, able, scenario))
        if IDLE in wanted:
            print("idle connections ...", file=sys.stderr, flush=True)
            for server in servers:
                server.stop()
            servers.clear()
            for name, binary in (("nginx-idle", options.nginx), ("thalweg-idle", options.binary)):
                start(name, binary)  # fresh ones: freed memory of earlier loads would hide the cost
            found = [idle_memory(server, options.idle_connections) for server in servers]
            report["results"].append({"scenario": IDLE, "connections": options.idle_connections, "nginx": found[0],
                                      "thalweg": found[1], "goal": IDLE_GOAL, "pass": found[1] <= IDLE_GOAL})
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    print(markdown(report))
    return 0 if all(row["pass"] for row in report["results"]) else 1


if __name__ == "__main__":
    sys.exit(main())
