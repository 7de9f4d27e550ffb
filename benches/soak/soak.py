#!/usr/bin/env python3
"""Mixed load for half an hour with a reload every minute: does anything grow, fail or complain?

HTTP/1 in the clear and over TLS, HTTP/2, static and proxied files, gzip, WebSockets, uploads, WebDAV, downloads that are
slow or given up, all paced so that the machine is busy but not full. Every few seconds the memory, descriptors and
threads of the server's processes, its requests, and the times that a good client sees are written down.

Needs wrk, h2load and openssl (Debian: apt-get install wrk nghttp2-client openssl) and no root:

    cargo build --profile measure && benches/soak/soak.py --binary target/measure/thalweg

Leaves samples.csv, soak.png and summary.md in --out (this folder, if not given), and ends with status 1 if something
grew after the warm-up, a client failed, or a line of the error log is not among EXPLAINED.
"""

import argparse
import csv
import hashlib
import itertools
import multiprocessing
import os
import platform
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "peers"))
import clients  # noqa: E402
import plot  # noqa: E402
from run import free_port  # noqa: E402

# What may stand in the error log (at level info), and why.
EXPLAINED = [
    (r"\[notice\] .*signal \d+ \(SIG\w+\) received|\[notice\] .*reconfigur|\[notice\] .*(start|exit|gracefully)",
     "a reload, the start or the end"),
    (r"\[notice\] .*thalweg/", "the start"),
    (r"\[info\] .*: \*\d+ (epoll_wait\(\) reported that )?client prematurely closed connection", "a client that gives up"),
    (r"\[warn\] .*(response is buffered to a temporary file|body is buffered to a temporary file), .*(10m.bin|100k.bin|upload)",
     "a client that is slower than its upstream, or a large upload"),
]
# Growth after the warm-up that is no growth, as the medians of the last and the first fifth of the time after it.
# Memory: what an allocator that keeps what it once had moves by from one fifth to the next.
MEMORY_SLACK_KIB = 2048
DESCRIPTOR_SLACK = 8
WARM_UP = 5 / 30

CONFIGURATION = """daemon off;
worker_processes 2;
worker_rlimit_nofile {files};
pid {root}/server.pid;
error_log {root}/error.log info;
{user}
events {{ worker_connections 4096; }}
http {{
    types {{ text/html html; application/octet-stream bin; }}
    log_format soak '$remote_addr "$request" $status $body_bytes_sent $request_time round{round} *$connection';
    access_log {root}/access.log soak buffer=64k flush=1s;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    client_max_body_size 10m;
    keepalive_requests 1000000;
    sendfile on;
    upstream origin {{ server 127.0.0.1:{origin}; keepalive 32; }}
    upstream python {{ server 127.0.0.1:{python}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{tls} ssl;
        http2 on;
        ssl_certificate {root}/cert.pem;
        ssl_certificate_key {root}/key.pem;
        ssl_session_cache shared:sessions:4m;
        root {root}/html;
        location /gzip/ {{ alias {root}/html/; gzip on; gzip_min_length 100; }}
        location /proxied/ {{ proxy_pass http://origin/; }}
        location /proxied-gzip/ {{ proxy_pass http://origin/; gzip on; gzip_proxied any; }}
        location /upload {{ proxy_pass http://python; }}
        location /stream {{ proxy_pass http://python; proxy_request_buffering off; }}
        location /socket {{ proxy_pass http://python; proxy_read_timeout 300s; }}
        location /dav/ {{ root {root}; dav_methods PUT DELETE; }}
        location = /status {{ access_log off; stub_status; }}
        location = /round {{ access_log off; return 200 {round}; }}
    }}
}}
"""
ORIGIN = """daemon off;
worker_processes 1;
pid {root}/origin.pid;
error_log {root}/origin-error.log warn;
{user}
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 1000000; server {{ listen 127.0.0.1:{origin}; root {root}/html; }} }}
"""


class Soak:
    def __init__(self, options, root):
        self.options, self.root = options, root
        self.ports = {name: free_port() for name in ("plain", "tls", "origin", "python")}
        self.round = 0
        self.children, self.generators, self.stopping = [], [], threading.Event()
        self.lock = threading.Lock()
        self.done, self.failures, self.times = Counter(), [], []
        self.reloads, self.reload_times = [], []

    # --- the ground

    def prepare(self):
        html = self.root / "html"
        html.mkdir()
        (self.root / "dav").mkdir()
        self.contents = {"1k": clients.content(1024, 1), "10m": hashlib.sha256(clients.content(clients.TEN, 2)).digest()}
        (html / "1k.bin").write_bytes(self.contents["1k"])
        (html / "100k.bin").write_bytes(clients.content(102400, 3))
        (html / "10m.bin").write_bytes(clients.content(clients.TEN, 2))
        words = "".join(f"<p>{number} {hashlib.md5(str(number).encode()).hexdigest()}</p>\n" for number in range(12000))
        (html / "text.html").write_text(words)
        (html / "short.html").write_text(words[:6000])
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-keyout", self.root / "key.pem", "-out", self.root / "cert.pem", "-days", "30",
                        "-subj", "/CN=soak"], check=True, capture_output=True)
        os.chmod(self.root, 0o755)

    def write(self, name, template):
        text = template.format(root=self.root, round=self.round, **self.ports,
                               files=min(20000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
                               user="user root;" if os.geteuid() == 0 else "")
        (self.root / name).write_text(text)

    def serve(self, name, log):
        command = [self.options.binary, "-p", f"{self.root}/", "-c", self.root / name, "-e", self.root / log]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=open(self.root / f"{name}.stderr", "wb"))
        self.children.append(process)
        return process

    def start(self):
        self.write("origin.conf", ORIGIN)
        self.write("soak.conf", CONFIGURATION)
        self.serve("origin.conf", "origin-error.log")
        self.queue = multiprocessing.Queue()
        self.spawn(clients.upstream, self.ports["python"])
        time.sleep(1)
        self.master = self.serve("soak.conf", "error.log")
        deadline = time.monotonic() + 15
        while self.ask("/round") != "0":
            if time.monotonic() > deadline:
                sys.exit("the server does not start:\n" + (self.root / "soak.conf.stderr").read_text())
            time.sleep(0.05)

    def spawn(self, run, *arguments):
        process = multiprocessing.Process(target=run, args=arguments, daemon=True)
        process.start()
        return process

    # --- the load

    def load(self):
        # Before there are pipes to the others, which forked processes would hold open.
        self.clients = [self.spawn(clients.good, self.queue, self.ports["plain"], 0.02),
                        self.spawn(clients.others, self.queue, self.ports, self.contents)]
        plain, tls = f"http://127.0.0.1:{self.ports['plain']}", f"https://127.0.0.1:{self.ports['tls']}"

        def wrk(connections, pause, url, *more):
            return ["wrk", "-t1", "--timeout", "20s", f"-c{connections}", "-s", HERE / "paced.lua", *more, url, "--", str(pause)]

        def h2(connections, streams, rate, *urls):
            return ["h2load", f"-c{connections}", f"-m{streams}", f"--rps={rate}", *urls]

        gzip = ("-H", "Accept-Encoding: gzip")
        for name, command in [
            ("static", wrk(32, 50, f"{plain}/1k.bin")),
            ("static 100k", wrk(8, 80, f"{plain}/100k.bin")),
            ("missing", wrk(2, 200, f"{plain}/1k.bin", "-H", "Connection: close")),
            ("tls", wrk(16, 50, f"{tls}/1k.bin")),
            ("proxied", wrk(16, 50, f"{plain}/proxied/1k.bin")),
            ("gzip", wrk(4, 150, f"{plain}/gzip/text.html", *gzip)),
            ("proxied gzip", wrk(4, 100, f"{plain}/proxied-gzip/short.html", *gzip)),
            ("h2", h2(8, 8, 40, f"{tls}/1k.bin")),
            ("h2 proxied", h2(4, 8, 40, f"{tls}/proxied/1k.bin", f"{tls}/proxied/100k.bin")),
            ("h2 in the clear", h2(4, 4, 20, f"{plain}/gzip/short.html")),
        ]:
            thread = threading.Thread(target=self.generate, args=(name, command), daemon=True)
            thread.start()
            self.generators.append(thread)

    def generate(self, name, command):
        """Runs a load generator for a while, counts what it says, and starts it again: with fresh connections."""
        for turn in itertools.count():
            if self.stopping.is_set():
                return
            # Different lengths, so that their connections do not all end at once.
            seconds = 17 + (turn + len(name)) % 7
            duration = f"-d{seconds}s" if command[0] == "wrk" else f"-D{seconds}"
            began = time.monotonic()
            said = subprocess.run([command[0], duration, *command[1:]], capture_output=True, text=True).stdout
            if command[0] == "wrk":
                count = int((re.search(r"(\d+) requests in", said) or [0, 0])[1])
                bad = re.findall(r"(Socket errors: .*|Non-2xx.*)", said)
            else:
                found = re.search(r"(\d+) total, .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", said)
                count = int(found[2]) if found else 0
                bad = [found[0]] if found and any(int(found[number]) for number in (3, 4, 5)) else []
                statuses = re.search(r"status codes: \d+ 2xx, (.*)", said)
                bad += [statuses[0]] if statuses and any(map(int, re.findall(r"(\d+) \dxx", statuses[1]))) else []
            if self.options.verbose:
                print(f"{name}: {count} in {time.monotonic() - began:.1f} s {bad}", flush=True)
            with self.lock:
                self.done[name] += count
                at = f"{(began - self.began) / 60:.1f} to {(time.monotonic() - self.began) / 60:.1f} min"
                self.failures += [f"{name} ({at}): {one}" for one in bad]
                if not count and not self.stopping.is_set():
                    self.failures.append(f"{name} ({at}): not one request\n{said}")

    def gather(self):
        """What the clients told since the last time; the times of the good one."""
        times = []
        while not self.queue.empty():
            name, done, failures, seconds = self.queue.get()
            at = f"{(time.monotonic() - self.began) / 60:.1f} min"
            with self.lock:
                self.done[name] += done
                self.failures += [f"{one} ({at})" for one in failures]
            times += seconds
        return sorted(times)

    # --- what is measured

    def ask(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['plain']}{path}", timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            return ""

    def processes(self):
        pid = self.master.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def holdings(self):
        rss = anonymous = descriptors = threads = 0
        for pid in self.processes():
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            rss += int(status["VmRSS"].split()[0])
            anonymous += int(status["RssAnon"].split()[0])
            threads += int(status["Threads"])
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
        return {"rss_kib": rss, "anonymous_kib": anonymous, "descriptors": descriptors, "threads": threads}

    def cpu_seconds(self):
        ticks = 0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def requests(self):
        numbers = re.findall(r"\d+", self.ask("/status"))
        return int(numbers[3]) if len(numbers) > 3 else None, int(numbers[0]) if numbers else None

    def reload(self):
        self.round += 1
        self.write("soak.conf", CONFIGURATION)
        begin = time.monotonic()
        self.master.send_signal(signal.SIGHUP)
        while self.ask("/round") != str(self.round):
            if time.monotonic() - begin > 15:
                self.failures.append(f"reload {self.round} did not take effect")
                break
            time.sleep(0.02)
        self.reload_times.append(time.monotonic() - begin)
        self.reloads.append((begin - self.began) / 60)

    def run(self):
        options = self.options
        self.began = time.monotonic()
        time.sleep(1)
        self.idle_before = self.holdings()
        self.load()
        samples, total = [], options.minutes * 60
        next_reload, last, process = options.reload_every, (None, None, None), self.processes()
        while (elapsed := time.monotonic() - self.began) < total:
            if elapsed >= next_reload:
                self.reload()
                next_reload += options.reload_every
            time.sleep(max(0, options.sample_every - (time.monotonic() - self.began) % options.sample_every))
            times, (count, active), now, cpu = self.gather(), self.requests(), time.monotonic(), self.cpu_seconds()
            rate = (count - last[1]) / (now - last[0]) if last[1] is not None and count is not None else None
            used = (cpu - last[2]) / (now - last[0]) if last[1] is not None else None
            last = (now, count, cpu)
            at = lambda part: round(times[min(int(len(times) * part), len(times) - 1)] * 1000, 2) if times else None
            samples.append({
                "minute": round((now - self.began) / 60, 3), **self.holdings(), "active_connections": active,
                "requests_per_second": None if rate is None else round(rate), "cores_used": None if used is None else round(used, 3),
                "p50_ms": at(0.5), "p99_ms": at(0.99), "longest_ms": at(1), "failures": len(self.failures),
                "reloads": self.round,
            })
            if options.verbose:
                print(samples[-1], flush=True)
        self.samples, self.same_process = samples, process == self.processes()
        self.end()

    def end(self):
        self.stopping.set()
        for process in self.clients:
            process.kill()
        for thread in self.generators:
            thread.join()
        self.gather()
        # What was under way is closed within moments; idle connections to upstreams after their minute.
        time.sleep(self.options.settle)
        self.idle_after = self.holdings()
        self.master.send_signal(signal.SIGQUIT)
        self.status = self.master.wait(30)

    def stop(self):
        self.stopping.set()
        for process in self.children:
            if process.poll() is None:
                process.terminate()
                process.wait(15)

    # --- what is told

    def unexplained(self):
        counts, strange = Counter(), Counter()
        for line in (self.root / "error.log").read_text(errors="replace").splitlines():
            reason = next((reason for pattern, reason in EXPLAINED if re.search(pattern, line)), None)
            if reason is None:
                strange[re.sub(r"\d+", "N", line.split(", client: ")[0])] += 1
            else:
                counts[reason] += 1
        for name in ("origin-error.log", "soak.conf.stderr", "origin.conf.stderr"):
            path = self.root / name
            strange.update(path.read_text(errors="replace").splitlines() if path.exists() else [])
        return counts, strange

    def growth(self):
        steady = [one for one in self.samples if one["minute"] >= self.options.minutes * WARM_UP]
        fifth = max(len(steady) // 5, 1)
        rows = {}
        for name in ("rss_kib", "anonymous_kib", "descriptors", "threads", "p99_ms", "requests_per_second"):
            values = [[one[name] for one in part if one[name] is not None] for part in (steady[:fifth], steady[-fifth:], steady)]
            rows[name] = (statistics.median(values[0]), statistics.median(values[1]), min(values[2]), max(values[2]))
        return rows

    def report(self):
        options, out = self.options, Path(self.options.out)
        out.mkdir(parents=True, exist_ok=True)
        with open(out / "samples.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, self.samples[0].keys())
            writer.writeheader()
            writer.writerows(self.samples)
        column = lambda name, scale=1: [None if one[name] is None else one[name] / scale for one in self.samples]
        plot.draw(out / "soak.png", f"Mixed load for {options.minutes:g} minutes, {len(self.reloads)} reloads",
                  column("minute"), [
                      ("memory, MiB", [("resident", column("rss_kib", 1024)), ("of it anonymous", column("anonymous_kib", 1024))]),
                      ("descriptors", [("open", column("descriptors")), ("connections", column("active_connections"))]),
                      ("requests a second", [("answered", column("requests_per_second"))]),
                      ("the good client, ms", [("p50", column("p50_ms")), ("p99", column("p99_ms"))]),
                  ], self.reloads, "reloads")
        counts, strange = self.unexplained()
        rows = self.growth()
        faults = list(self.failures[:50])
        first, last = rows["anonymous_kib"][:2]
        if last > first + MEMORY_SLACK_KIB:
            faults.append(f"memory grew by {last - first:.0f} KiB")
        first, last = rows["descriptors"][:2]
        if last > first + DESCRIPTOR_SLACK:
            faults.append(f"{last - first:.0f} more descriptors")
        if self.idle_after["descriptors"] > self.idle_before["descriptors"] + DESCRIPTOR_SLACK:
            faults.append(f"descriptors before and after: {self.idle_before['descriptors']}, {self.idle_after['descriptors']}")
        if not self.same_process:
            faults.append("the server process is another one than at the beginning")
        if self.status != 0:
            faults.append(f"the server ended with status {self.status}")
        faults += [f"unexplained, {count} times: {line}" for line, count in strange.most_common(50)]
        self.summary(out, rows, counts, faults)
        return faults

    def summary(self, out, rows, counts, faults):
        lines = [
            "# Soak", "",
            f"{self.options.minutes:g} minutes, {len(self.reloads)} reloads, {sum(self.done.values()):,} requests by the clients' count, "
            f"{self.samples[-1]['cores_used']} cores used by the server at the end; {os.cpu_count()} cores, "
            f"Linux {platform.release()}. Made by `benches/soak/soak.py`; the samples are in `samples.csv`, drawn in `soak.png`.",
            "", f"After the warm-up (the first {self.options.minutes * WARM_UP:g} minutes), medians of the first and the last fifth:", "",
            "| | first | last | least | most |", "| --- | ---: | ---: | ---: | ---: |",
        ]
        for name, values in rows.items():
            lines.append(f"| {name} | " + " | ".join(f"{value:,.6g}" for value in values) + " |")
        before, after = self.idle_before, self.idle_after
        lines += [
            "", f"Idle, before the load and {self.options.settle:g} s after it: descriptors {before['descriptors']} and "
            f"{after['descriptors']}, threads {before['threads']} and {after['threads']}, resident "
            f"{before['rss_kib'] / 1024:.1f} and {after['rss_kib'] / 1024:.1f} MiB. "
            f"A reload took effect after {statistics.median(self.reload_times) * 1000:.0f} ms (median; most "
            f"{max(self.reload_times) * 1000:.0f} ms)." if self.reload_times else "",
            "", "What the clients did:", "", "| | done |", "| --- | ---: |",
            *[f"| {name} | {count:,} |" for name, count in sorted(self.done.items())],
            "", "Lines of the error log (level info) by their reason:", "", "| | lines |", "| --- | ---: |",
            *[f"| {reason} | {count:,} |" for reason, count in counts.most_common()], "",
            f"Nothing failed or complained, and nothing grew by more than the slack ({MEMORY_SLACK_KIB} KiB anonymous, "
            f"{DESCRIPTOR_SLACK} descriptors)." if not faults else "Not as it should be:", "",
            *[f"- {fault}" for fault in faults],
        ]
        (out / "summary.md").write_text("\n".join(lines).rstrip() + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent.parent / "target"))
    parser.add_argument("--binary", default=target / "measure" / "thalweg", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--reload-every", type=float, default=60, help="seconds")
    parser.add_argument("--sample-every", type=float, default=5, help="seconds")
    parser.add_argument("--settle", type=float, default=70, help="seconds from the end of the load to the last look")
    parser.add_argument("--out", default=HERE, help="folder for samples.csv, soak.png, summary.md")
    parser.add_argument("--keep", help="folder for the configuration and logs; without it they go at the end")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    options.binary = options.binary.resolve()
    with tempfile.TemporaryDirectory(prefix="thalweg-soak-") as folder:
        root = Path(options.keep or folder)
        root.mkdir(parents=True, exist_ok=True)
        soak = Soak(options, root)
        soak.prepare()
        try:
            soak.start()
            soak.run()
        finally:
            soak.stop()
        faults = soak.report()
    print(Path(options.out, "summary.md").read_text())
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
