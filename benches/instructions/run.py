#!/usr/bin/env python3
"""Instructions per request of the hot paths, counted by callgrind, and whether a change made one of them slower.

A count does not depend on how busy the machine is: it is the same within a fraction of a percent from run to run. Each
scenario sends the same request over one connection, one after the other, to a worker under callgrind; the counter is set
to zero after a warm-up. The worker's thread alone is counted: the others work by the clock, or wait for work in loops
whose rounds are the scheduler's choice. No scenario needs the pool of threads, and none fills a socket's buffer, since how
often a worker wakes up then is chance as well. What the kernel does is not counted, and what a count cannot see (misses
of caches, kinds of instructions) benches/peers/ measures.

    cargo build --profile measure && benches/instructions/run.py
    benches/instructions/run.py --check                  # fails if one is over its record by more than 3 %
    benches/instructions/run.py --write                  # the new records, after a change that is meant
    benches/instructions/run.py --only static-1k --profile out.callgrind    # see where they go: callgrind_annotate

Needs valgrind and openssl (Debian: apt-get install valgrind openssl). The records hold for what their file names in its
first line: the compiler, the C library, valgrind, and the widest vectors that valgrind's processor has (it takes that from
the real one, and libraries choose their code by it). With other ones a count over its record is said, and nothing fails.
"""

import argparse
import os
import platform
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
RECORDS = HERE / "records.tsv"
TOLERANCE = 0.03
WARM_UP = 300
PORTS = ("plain", "upstream", "tls", "h2")

CONFIGURATION = """daemon off;
master_process off;
worker_processes 1;
pid {root}/server.pid;
error_log {root}/error.log;
{user}
events {{ worker_connections 512; }}
http {{
    types {{ text/html html; text/plain txt; }}
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
    keepalive_time 24h;
    open_file_cache max=1000 inactive=3600s;
    open_file_cache_valid 3600s;
    open_file_cache_min_uses 1;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    upstream answers {{ server 127.0.0.1:{upstream}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{plain} sndbuf=1m;
        root {root}/html;
        location = /log {{ access_log {root}/access.log; try_files /1k.html =404; }}
        location = /quiet {{ log_not_found off; open_file_cache_errors on; }}
        location = /text.txt {{ gzip on; gzip_types text/plain; }}
        location ~ ^/pattern/(?<name>[a-z]+)$ {{ add_header X-Name $name; return 204; }}
        location /proxied {{ proxy_pass http://answers; proxy_http_version 1.1; proxy_set_header Connection ""; }}
        {locations}
    }}
    server {{
        listen 127.0.0.1:{upstream};
        root {root}/html;
        location / {{ try_files /1k.html =404; }}
    }}
    server {{
        listen 127.0.0.1:{tls} ssl;
        http2 on;
        ssl_certificate {root}/cert.pem;
        ssl_certificate_key {root}/key.pem;
        root {root}/html;
    }}
    server {{
        listen 127.0.0.1:{h2};
        http2 on;
        root {root}/html;
    }}
}}
"""


class Http1:
    """A client that sends one request again and again over one connection, and reads each answer whole."""

    def __init__(self, address, path, fields="", tls=False, together=1):
        self.socket = socket.create_connection(address)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.socket = context.wrap_socket(self.socket)
        self.request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench/1.0\r\n{fields}\r\n".encode() * together
        self.together, self.length = together, None

    def ask(self):
        self.socket.sendall(self.request)
        if self.length is None:
            self.length = self.together * self.learn()
            return
        left = self.length
        while left > 0:
            part = self.socket.recv(1 << 20)
            if not part:
                raise ConnectionError("closed within a response")
            left -= len(part)

    def learn(self):
        """Reads the first answers and tells how long one is: all of a scenario's have the same length."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.socket.recv(65536)
        head, _, _ = data.partition(b"\r\n\r\n")
        found = re.search(rb"(?i)content-length: *(\d+)", head)
        length = len(head) + 4 + (int(found[1]) if found else 0)
        while len(data) < length * self.together:
            data += self.socket.recv(65536)
        return length


class Http2:
    """The same with prior knowledge of HTTP/2: `streams` requests go out at once, whose answers are awaited together."""

    def __init__(self, address, path, streams=1):
        self.socket = socket.create_connection(address)
        self.stream, self.streams = 1, streams
        self.block = b"\x82\x86" + self.literal(4, path) + self.literal(1, "localhost")
        settings = bytes((0, 0, 6, 4, 0, 0, 0, 0, 0)) + b"\x00\x04\x7f\xff\xff\xff"
        window = bytes((0, 0, 4, 8, 0, 0, 0, 0, 0)) + (0x7FFF0000).to_bytes(4, "big")
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + window)
        self.buffer = b""

    @staticmethod
    def literal(index, value):
        """A field without indexing whose name is in the static table (RFC 7541, 6.2.2)."""
        return bytes((index, len(value))) + value.encode()

    def ask(self):
        frames = b""
        for _ in range(self.streams):
            frames += len(self.block).to_bytes(3, "big") + b"\x01\x05" + self.stream.to_bytes(4, "big") + self.block
            self.stream += 2
        self.socket.sendall(frames)
        left = self.streams
        while left > 0:
            while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
                part = self.socket.recv(1 << 20)
                if not part:
                    raise ConnectionError("closed within a response")
                self.buffer += part
            length, kind, flags = int.from_bytes(self.buffer[:3], "big"), self.buffer[3], self.buffer[4]
            if kind in (0, 1) and flags & 1:
                left -= 1
            elif kind == 4 and not flags & 1:
                self.socket.sendall(bytes((0, 0, 0, 4, 1, 0, 0, 0, 0)))
            elif kind in (3, 7):
                raise ConnectionError(f"frame of type {kind}: {self.buffer[9:9 + length]!r}")
            self.buffer = self.buffer[9 + length:]


def scenarios(ports):
    """Name, client, requests per `ask`."""
    plain, tls, h2 = (("127.0.0.1", ports[name]) for name in ("plain", "tls", "h2"))
    browser = ("Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en;q=0.5\r\n"
               "Accept-Encoding: identity\r\nReferer: http://localhost/\r\nCookie: a=1; b=2\r\n")
    return {
        "static-1k": (lambda: Http1(plain, "/1k.html"), 1),
        "static-1k-browser": (lambda: Http1(plain, "/1k.html", browser), 1),
        "static-1k-logged": (lambda: Http1(plain, "/log"), 1),
        "static-100k": (lambda: Http1(plain, "/100k.html"), 1),
        "pipelined-16": (lambda: Http1(plain, "/1k.html", together=16), 16),
        "not-modified": (lambda: Http1(plain, "/1k.html", "If-Modified-Since: Fri, 01 Jan 2038 00:00:00 GMT\r\n"), 1),
        "not-found": (lambda: Http1(plain, "/quiet"), 1),
        "pattern": (lambda: Http1(plain, "/pattern/name"), 1),
        "gzip-16k-kept": (lambda: Http1(plain, "/text.txt", "Accept-Encoding: gzip\r\n"), 1),
        "proxied-1k": (lambda: Http1(plain, "/proxied"), 1),
        "tls-1k": (lambda: Http1(tls, "/1k.html", tls=True), 1),
        "h2-1k": (lambda: Http2(h2, "/1k.html"), 1),
        "h2-1k-32": (lambda: Http2(h2, "/1k.html", 32), 32),
    }


def free_ports(count):
    """Ports that nobody listens on, each another one."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def site(root):
    """Makes files and a certificate beneath `root`; returns the configuration for them and its ports by name."""
    html = root / "html"
    html.mkdir()
    (html / "1k.html").write_bytes(b"x" * 1024)
    (html / "100k.html").write_bytes(b"x" * 102400)
    (html / "text.txt").write_bytes(b"".join(b"line %d of a text\n" % at for at in range(1000))[:16384])
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", root / "key.pem", "-out", root / "cert.pem", "-days", "30", "-subj", "/CN=localhost"],
                   check=True, capture_output=True)
    ports = dict(zip(PORTS, free_ports(len(PORTS))))
    locations = "".join(f"location /section-{at}/ {{ }}\n" for at in range(20))
    text = CONFIGURATION.format(root=root, locations=locations, user="user root;" if os.geteuid() == 0 else "", **ports)
    return text, ports


class Counted:
    """A server under callgrind; it is there when it listens at `port` of 127.0.0.1."""

    def __init__(self, binary, root, text, port):
        self.root = root
        (root / "nginx.conf").write_text(text)
        self.process = subprocess.Popen(
            ["valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={root}/out", "--quiet", binary,
             "-p", f"{root}/", "-c", f"{root}/nginx.conf", "-e", f"{root}/error.log"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    sys.exit(f"the server does not start:\n{(root / 'error.log').read_text()}")
                time.sleep(0.1)

    def control(self, *what):
        subprocess.run(["callgrind_control", *what, str(self.process.pid)], check=True, capture_output=True)

    def count(self, client, each, requests, keep):
        """Instructions per request of `client`."""
        for _ in range(WARM_UP // each + 2):
            client.ask()
        self.control("--zero")
        for _ in range(requests // each):
            client.ask()
        self.control("--dump")
        busiest, count = self.worker()
        if keep:
            shutil.copyfile(busiest, keep)
        return count / (requests // each * each)

    def worker(self):
        """The newest dump of the thread that did the most, and its instructions."""
        dumps = [(int(part), path) for path in self.root.glob("out.*-*")
                 for part in [path.suffix[1:].partition("-")[0]]]
        newest = max(part for part, _ in dumps)
        totals = {path: re.search(r"^(?:summary|totals): (\d+)", path.read_text(errors="replace"), re.M)
                  for part, path in dumps if part == newest}
        counts = {path: int(total[1]) for path, total in totals.items() if total}
        return max(counts.items(), key=lambda one: one[1])

    def stop(self):
        self.process.kill()
        self.process.wait()


def conditions():
    """What a count depends on beside the source."""
    def words(*command):
        return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY).stdout.split() or ["unknown"]

    flags = Path("/proc/cpuinfo").read_text()
    vectors = next((name for name in ("avx2", "avx") if re.search(rf"^flags.*\b{name}\b", flags, re.M)), "sse")
    return ", ".join((" ".join(words("rustc", "--version")[:2]), f"{platform.libc_ver()[0]} {platform.libc_ver()[1]}",
                      words("valgrind", "--version")[0], f"{platform.machine()} {vectors}"))


def read_records():
    """What they hold for, and the count of each scenario."""
    if not RECORDS.exists():
        return None, {}
    rows = [line.split("\t") for line in RECORDS.read_text().splitlines() if line]
    return rows[0][1], {name: int(count) for name, count in rows[1:]}


def write_records(records, counts):
    """What is no scenario any more goes; what was not counted now stays as it was."""
    names = scenarios(dict.fromkeys(PORTS, 0))
    lines = [f"{name}\t{count}" for name in names for count in [counts.get(name, records.get(name))] if count]
    RECORDS.write_text("\n".join([f"made with\t{conditions()}", *lines]) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    parser.add_argument("--binary", default=str(target / "measure" / "thalweg"))
    parser.add_argument("--requests", type=int, default=2048)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--check", action="store_true", help="fail if a count is over its record, or has none")
    parser.add_argument("--write", action="store_true", help="make these counts the records")
    parser.add_argument("--profile", help="keep callgrind's file of the last scenario here")
    options = parser.parse_args()
    made_with, records = read_records()
    same = made_with == conditions()
    counts, worse, better, unknown = {}, [], [], []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        text, ports = site(root)
        server = Counted(options.binary, root, text, ports["plain"])
        try:
            print("| scenario | instructions per request | record | change | |\n|---|---:|---:|---:|---|", flush=True)
            for name, (client, each) in scenarios(ports).items():
                if options.only and name not in options.only:
                    continue
                counts[name] = round(server.count(client(), each, options.requests, options.profile))
                record = records.get(name)
                change = f"{100 * (counts[name] / record - 1):+.1f} %" if record else ""
                over = bool(record) and counts[name] > record * (1 + TOLERANCE)
                verdict = "none" if not record else "pass" if not over else "FAIL" if same else "over"
                print(f"| {name} | {counts[name]:,} | {f'{record:,}' if record else ''} | {change} | {verdict} |", flush=True)
                if not record:
                    unknown.append(name)
                elif over:
                    worse.append(name)
                elif counts[name] < record * (1 - TOLERANCE):
                    better.append(name)
        finally:
            server.stop()
    if options.write:
        write_records(records, counts)
        return
    if better:
        print(f"under the record by more than {TOLERANCE:.0%}, so that --write is due: {', '.join(better)}")
    if unknown:
        print(f"without a record, so that --write is due: {', '.join(unknown)}")
    if worse:
        print(f"over the record by more than {TOLERANCE:.0%}: {', '.join(worse)}")
    if not same:
        print(f"warning: the records were made with {made_with}; here it is {conditions()}: nothing fails")
    elif options.check and (worse or unknown):
        sys.exit(1)


if __name__ == "__main__":
    main()
