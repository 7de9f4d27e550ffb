#!/usr/bin/env python3
"""What a request costs as a server grows: workers, locations, server names, connections; nginx beside it.

A row is a size, its cost is meant to be that of the first row and 15 % at most. Two measures of it:

- CPU per request, as run.py measures it (what the scheduler accounts to the server's threads). The servers of all sizes run
  side by side and are loaded in turn, round after round; the ratios are medians of those taken within a round.
- Instructions per request under callgrind (benches/instructions/), for what is looked up in tables: the program's own work,
  without the kernel's and without misses of caches, exact.

Needs nginx, wrk and valgrind (Debian: apt-get install nginx wrk valgrind). The whole takes some ten minutes:

    cargo build --release && cargo build --release --bench floor && benches/peers/scaling.py --write
    benches/peers/scaling.py --table names --rounds 5 --no-instructions

With --write, the tables become benches/peers/scaling.md.
"""

import argparse
import importlib.util
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE))
import run  # noqa: E402

specification = importlib.util.spec_from_file_location("instructions", HERE.parent / "instructions" / "run.py")
instructions = importlib.util.module_from_spec(specification)
specification.loader.exec_module(instructions)

LIMIT = 1.15
RESULTS = HERE / "scaling.md"
# Visits each of 1, 10, 100, ... entries before any comes again: it has no factor in common with them.
STRIDE = 7919

CONFIGURATION = """daemon off;
master_process {master};
worker_processes {workers};
worker_rlimit_nofile {{files}};
pid {{root}}/server.pid;
error_log {{root}}/error.log;
{{user}}
events {{{{ worker_connections {{files}}; }}}}
http {{{{
    default_type application/octet-stream;
    access_log off;
    sendfile on;
    keepalive_timeout 3600s;
    keepalive_requests 1000000000;
    keepalive_time 24h;
    open_file_cache max=1000 inactive=3600s;
    open_file_cache_valid 3600s;
    {{extra}}
    {servers}
}}}}
"""
# Hashes of nginx's that hold 10,000 names; Thalweg accepts the lines and needs no such numbers.
HASHES = "server_names_hash_max_size 65536; server_names_hash_bucket_size 128;"


class Case:
    """One size of a table: the server blocks, the requests that are sent (path, host), and what else is different."""

    def __init__(self, size, servers=None, requests=(("/1k.bin", "localhost"),), workers=1, connections=64):
        self.size, self.requests, self.workers, self.connections = size, list(requests), workers, connections
        self.servers = servers or server()

    def text(self, single=False):
        return CONFIGURATION.format(master="off" if single else "on", workers=self.workers, servers=self.servers)

    def scattered(self):
        count = len(self.requests)
        return [self.requests[at * STRIDE % count] for at in range(count)]


def server(inside="", name="localhost", listen="127.0.0.1:{port} backlog=16384"):
    return f"server {{{{ listen {listen}; server_name {name}; root {{html}}; {inside} }}}}\n"


def prefixes(size):
    locations = "".join(f"location /section-{at}/ {{{{ alias {{html}}/one/; }}}}\n" for at in range(size))
    return Case(size, server(locations), [(f"/section-{at}/1k.bin", "localhost") for at in range(size)])


def nested(size):
    """Locations within the paths of others: /group-7/ and /group-7/part-9/, ten of them in each."""
    groups = max(size // 10, 1)
    paths = [f"/group-{at % groups}/" + (f"part-{at // groups}/" if at >= groups else "") for at in range(size)]
    locations = "".join(f"location {path} {{{{ alias {{html}}/one/; }}}}\n" for path in paths)
    return Case(size, server(locations), [(f"{path}1k.bin", "localhost") for path in paths])


def exact(size):
    locations = "".join(f"location = /page-{at} {{{{ alias {{html}}/1k.bin; }}}}\n" for at in range(size))
    return Case(size, server(locations), [(f"/page-{at}", "localhost") for at in range(size)])


def names(size):
    servers = "".join(server(name=f"host-{at}.example.org", listen="127.0.0.1:{port}" + (" backlog=16384" if at == 0 else ""))
                      for at in range(size))
    return Case(size, HASHES + servers, [("/1k.bin", f"host-{at}.example.org") for at in range(size)])


def wildcards(size):
    servers = "".join(server(name=f"*.host-{at}.example.org", listen="127.0.0.1:{port}" + (" backlog=16384" if at == 0 else ""))
                      for at in range(size))
    return Case(size, HASHES + servers, [("/1k.bin", f"www.host-{at}.example.org") for at in range(size)])


class Table:
    def __init__(self, title, unit, cases, counted=True, note=""):
        self.title, self.unit, self.cases, self.counted, self.note = title, unit, cases, counted, note


DECADES = (1, 10, 100, 1000, 10000)
TABLES = {
    "workers": Table("Workers", "workers", lambda: [Case(count, workers=count, connections=128) for count in (1, 2)], False,
                     "Servers and load may use both cores, which they share: requests per second say what is left to the "
                     "server beside wrk (two threads)."),
    "locations": Table("Prefix locations", "locations", lambda: [prefixes(size) for size in DECADES]),
    "nested": Table("Prefix locations within one another", "locations", lambda: [nested(size) for size in DECADES]),
    "exact": Table("Exact locations", "locations", lambda: [exact(size) for size in DECADES]),
    "names": Table("Server names", "servers", lambda: [names(size) for size in DECADES]),
    "wildcards": Table("Server names with a wildcard", "servers", lambda: [wildcards(size) for size in DECADES]),
    "connections": Table("Keep-alive connections", "connections",
                         lambda: [Case(count, server(listen="0.0.0.0:{port} backlog=16384"), connections=count)
                                  for count in (64, 1, 1000, 4000, 15000)], False,
                         "`floor` is a bare epoll loop with a canned answer (`floor.rs`): what grows there is the kernel's, "
                         "which touches other memory for each connection. With one connection a request has a wake-up of its "
                         "own; with more they share one."),
}


class Bench:
    """The servers of one table, by program and size, and what was measured of them."""

    def __init__(self, options, folder, table):
        self.options, self.table, self.folder = options, table, folder
        self.cases = table.cases()
        self.programs = {"nginx": options.nginx, "thalweg": options.binary}
        if not table.counted and options.floor and self.cases[0].workers == self.cases[-1].workers:
            self.programs["floor"] = options.floor
        self.servers, self.loads = {}, 0

    def start(self):
        alike = {}
        for program, binary in self.programs.items():
            for case in self.cases:
                text = case.text()
                if (program, text) not in alike:
                    cores = self.cores(case, self.options.server_core)
                    alike[program, text] = run.Server(f"{program}-{case.size}", binary, self.folder, self.folder / "html",
                                                      cores, "", text)
                self.servers[program, case.size] = alike[program, text]

    def stop(self):
        for one in set(self.servers.values()):
            one.stop()

    def cores(self, case, otherwise):
        return otherwise if case.connections != 128 else f"{self.options.server_core},{self.options.load_core}"

    def load(self, program, case, seconds):
        requests = self.folder / f"requests-{case.size}"
        requests.write_text("".join(f"{path} {host}\n" for path, host in case.scattered()))
        one = self.servers[program, case.size]
        # An address of its own for each run of many connections: their ports are taken for a minute after it.
        self.loads += 1
        address = f"127.0.{self.loads // 250 % 250}.{self.loads % 250 + 1}" if "0.0.0.0" in case.servers else "127.0.0.1"
        threads = 2 if case.connections == 128 else 1
        command = ["taskset", "-c", self.cores(case, self.options.load_core), "wrk", f"-t{threads}", f"-c{case.connections}",
                   f"-d{seconds}s", "--timeout", "20s", "-s", str(HERE / "spread.lua"), f"http://{address}:{one.port}/",
                   "--", str(requests)]
        count, rate, spent, errors = run.wrk(one, command, seconds)
        if errors:
            sys.exit(f"{program}, {case.size} {self.table.unit}: {errors}")
        return count, rate, spent

    def sample(self, program, case):
        """Requests per second, and CPU microseconds per request: what a longer run takes more than a shorter one, so that
        opening and closing the connections is not in it."""
        seconds = self.options.seconds
        if case.connections < 1000:
            count, rate, spent = self.load(program, case, seconds)
            return rate, spent / 1000 / count
        few, _, less = self.load(program, case, opening(case))
        count, rate, spent = self.load(program, case, opening(case) + 3 * seconds)
        return rate, (spent - less) / 1000 / max(count - few, 1)

    def measure(self):
        """Rows by size: per program the rate, the CPU per request, and its ratio to the first size's."""
        samples = {}
        for number in range(-1, self.options.rounds):  # the first one warms caches and does not count
            for case in self.cases:
                for program in list(self.programs)[:: 1 if number % 2 else -1]:
                    taken = self.sample(program, case) if number >= 0 else self.load(program, case, opening(case))
                    if number >= 0:
                        samples.setdefault((program, case.size), []).append(taken)
        first = self.cases[0].size
        rows = {}
        for program in self.programs:
            for case in self.cases:
                mine, base = samples[program, case.size], samples[program, first]
                rows[program, case.size] = {
                    "rate": statistics.median(rate for rate, _ in mine),
                    "cpu": statistics.median(cpu for _, cpu in mine),
                    "growth": statistics.median(ours[1] / theirs[1] for ours, theirs in zip(mine, base)),
                }
        return rows

    def count(self):
        """Instructions per request by program and size."""
        found = {}
        for program, binary in self.programs.items():
            for case in self.cases:
                root = self.folder / f"counted-{program}-{case.size}"
                root.mkdir()
                port = run.free_port()
                text = case.text(single=True).format(
                    root=root, html=self.folder / "html", port=port, files=1024,
                    extra=temporary(self.folder, program, case.size), user="user root;" if os.geteuid() == 0 else "")
                server = instructions.Counted(binary, root, text, port)
                try:
                    found[program, case.size] = server.count(Spread(port, case.scattered()), 1, 2048, None)
                finally:
                    server.stop()
        return found


class Spread:
    """A client of instructions/run.py's kind that sends one request after another, each another one."""

    def __init__(self, port, requests):
        self.connection = socket.create_connection(("127.0.0.1", port))
        self.requests = [f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench/1.0\r\n\r\n".encode()
                         for path, host in requests]
        self.at = 0

    def ask(self):
        head, _ = run.ask(self.connection, self.requests[self.at])
        if b" 200 " not in head[:16]:
            sys.exit(f"{self.requests[self.at]!r} is answered with {head!r}")
        self.at = (self.at + 1) % len(self.requests)


def opening(case):
    """Seconds of load in which all connections are opened, also on a machine that is busy."""
    return 1 + case.connections // 3000


def temporary(folder, program, size):
    """nginx's folders, which only root may write to where Debian has them."""
    if program != "nginx":
        return ""
    parts = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return " ".join(f"{one}_temp_path {folder}/nginx-{size}-{one};" for one in parts)


def show(table, cases, rows, counts):
    """The table as lines of Markdown, and what is not flat."""
    programs = list(dict.fromkeys(program for program, _ in rows))
    heads = [f"{program} {what}" for program in programs for what in ("req/s", "CPU µs/req", "growth")]
    heads += [f"{program} {what}" for program in ("nginx", "thalweg") if counts for what in ("instructions", "growth")]
    lines = [f"## {table.title}", "", table.note, ""] if table.note else [f"## {table.title}", ""]
    lines += [f"| {table.unit} | " + " | ".join(heads) + " | flat |", "| ---: |" + " ---: |" * len(heads) + " --- |"]
    steep = []
    for case in cases:
        cells = [f"{case.size:,}"]
        for program in programs:
            row = rows[program, case.size]
            cells += [f"{row['rate']:,.0f}", f"{row['cpu']:.2f}", f"{row['growth']:.2f}"]
        growth = rows["thalweg", case.size]["growth"]
        for program in ("nginx", "thalweg") if counts else ():
            mine, base = counts[program, case.size], counts[program, cases[0].size]
            cells += [f"{mine:,.0f}", f"{mine / base:.2f}"]
        flat = growth <= LIMIT
        if not flat:
            steep.append(f"{case.size:,} {table.unit}")
        lines.append("| " + " | ".join(cells) + f" | {'yes' if flat else 'no'} |")
    return lines + [""], steep


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(os.environ.get("CARGO_TARGET_DIR", run.REPOSITORY / "target")) / "release"
    parser.add_argument("--binary", default=str(target / "thalweg"))
    parser.add_argument("--nginx", default=shutil.which("nginx") or "/usr/sbin/nginx")
    parser.add_argument("--floor", help="floor.rs as a program; by default the newest one beside the binary, if any")
    parser.add_argument("--table", action="append", choices=list(TABLES), help="only this one (may be repeated)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=1, help="of load per server, size and round")
    parser.add_argument("--server-core", default="0")
    parser.add_argument("--load-core", default="1")
    parser.add_argument("--no-instructions", action="store_true")
    parser.add_argument("--write", action="store_true", help="make these tables benches/peers/scaling.md")
    options = parser.parse_args()
    options.floor = options.floor or run.newest_floor(options.binary)
    for tool in ("wrk", "taskset", options.nginx, options.binary):
        if not shutil.which(tool):
            sys.exit(f"{tool} is not there")
    if not options.no_instructions and not shutil.which("valgrind"):
        sys.exit("valgrind is not there: --no-instructions goes on without")
    return options


def main():
    options = arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    text = ["# Scaling", "", "Made by `cargo build --release && cargo build --release --bench floor && "
            "benches/peers/scaling.py --write`. What is measured is said at the top of that file.", "",
            f"{run.version(options.binary)} and {run.version(options.nginx)}; {run.machine()}; {options.rounds} rounds of "
            f"{options.seconds} s. \"growth\" is the ratio to the first row's cost, \"flat\" says whether Thalweg's CPU per "
            f"request stays within {LIMIT:.2f} of it. What the tables say is in the README.", ""]
    print("\n".join(text))
    for name in options.table or TABLES:
        folder = Path(tempfile.mkdtemp(prefix="thalweg-scaling-"))
        os.chmod(folder, 0o755)
        bench = Bench(options, folder, TABLES[name])
        try:
            run.make_site(folder / "html")
            (folder / "html" / "one").mkdir()
            shutil.copy(folder / "html" / "1k.bin", folder / "html" / "one")
            bench.start()
            rows = bench.measure()
            bench.stop()
            counts = bench.count() if TABLES[name].counted and not options.no_instructions else {}
        finally:
            bench.stop()
            shutil.rmtree(folder, ignore_errors=True)
        lines, steep = show(TABLES[name], bench.cases, rows, counts)
        print("\n".join(lines), flush=True)
        if steep:
            print(f"not flat: {', '.join(steep)}\n", flush=True)
        text += lines
    if options.write:
        RESULTS.write_text("\n".join(text))


if __name__ == "__main__":
    main()
