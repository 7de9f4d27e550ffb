#!/usr/bin/env python3
"""The system calls of hot keep-alive requests, counted by strace: one recv and one send each, and its share of
epoll_wait (and one statx without open_file_cache, --no-file-cache).

    benches/peers/syscalls.py [--binary PROGRAM] [--requests N] [--path /1k.bin] [--no-file-cache]
"""

import argparse
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
specification = importlib.util.spec_from_file_location("run", HERE / "run.py")
run = importlib.util.module_from_spec(specification)
sys.dont_write_bytecode = True
specification.loader.exec_module(run)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(run.REPOSITORY / "target/release/thalweg"))
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--path", default="/1k.bin")
    parser.add_argument("--no-file-cache", action="store_true")
    options = parser.parse_args()
    if options.no_file_cache:
        text = run.CONFIGURATION.split("\n")
        run.CONFIGURATION = "\n".join(line for line in text if "open_file_cache" not in line)
    folder = Path(tempfile.mkdtemp(prefix="thalweg-bench-"))
    os.chmod(folder, 0o755)
    server = None
    try:
        run.make_site(folder / "html")
        server = run.Server("server", options.binary, folder, folder / "html", "0", "")
        connection = socket.create_connection(("127.0.0.1", server.port), 5)
        request = f"GET {options.path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        for _ in range(3):
            run.ask(connection, request)
        output = folder / "strace"
        processes = [argument for pid in server.processes() for argument in ("-p", str(pid))]
        tracer = subprocess.Popen(["strace", "-f", "-c", "-U", "calls,errors,name", "-o", str(output), *processes],
                                  stderr=subprocess.PIPE, text=True)
        tracer.stderr.readline()  # "Process N attached"
        time.sleep(0.5)
        for _ in range(options.requests):
            run.ask(connection, request)
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
        print(f"{options.requests} requests for {options.path} on one connection:")
        print(output.read_text())
    finally:
        if server:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
