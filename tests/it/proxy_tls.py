"""An HTTPS server that tells what it saw: the other side of the tests in proxy_tls.rs.

usage: proxy_tls.py name=value ...
  certificate, key: files; ca: asks clients for certificates of this authority (required=1: insists)
  highest, lowest: TLSv1_2 or TLSv1_3
Prints its port, then one line for each request.
"""

import hashlib
import json
import socket
import ssl
import sys
import threading

options = dict(argument.split("=", 1) for argument in sys.argv[1:])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(options["certificate"], options["key"])
if "ca" in options:
    context.load_verify_locations(options["ca"])
    context.verify_mode = ssl.CERT_REQUIRED if "required" in options else ssl.CERT_OPTIONAL
if "highest" in options:
    context.maximum_version = getattr(ssl.TLSVersion, options["highest"])
if "lowest" in options:
    context.minimum_version = getattr(ssl.TLSVersion, options["lowest"])


def note_name(connection, name, _):
    connection.name_sent = name


context.sni_callback = note_name


def read_head(stream):
    lines = []
    while True:
        line = stream.readline()
        if not line:
            return None
        if line in (b"\r\n", b"\n"):
            return lines
        lines.append(line.decode("latin-1").rstrip("\r\n"))


def read_body(stream, fields):
    if fields.get("transfer-encoding") == "chunked":
        body = b""
        while True:
            size = int(stream.readline(), 16)
            piece = stream.read(size + 2)[:-2]
            if size == 0:
                return body
            body += piece
    return stream.read(int(fields.get("content-length", "0")))


def pattern(length):
    block = bytes(i % 251 for i in range(251 * 64))
    return (block * (length // len(block) + 1))[:length]


def serve(raw, number):
    try:
        connection = context.wrap_socket(raw, server_side=True)
    except (OSError, ssl.SSLError) as error:
        print(json.dumps({"failed": str(error)}), flush=True)
        raw.close()
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream = connection.makefile("rb")
    requests = 0
    try:
        while True:
            head = read_head(stream)
            if not head:
                break
            requests += 1
            method, target, _ = head[0].split(" ")
            fields = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in head[1:]}
            if fields.get("upgrade") == "websocket":
                connection.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nhello"
                )
                while True:
                    data = stream.read1(65536)
                    if not data:
                        break
                    connection.sendall(data)
                connection.sendall(b"bye")
                break
            body = read_body(stream, fields)
            peer = connection.getpeercert() or {}
            seen = {
                "connection": number,
                "request": requests,
                "target": target,
                "host": fields.get("host"),
                "name": getattr(connection, "name_sent", None),
                "version": connection.version(),
                "cipher": connection.cipher()[0],
                "resumed": connection.session_reused,
                "client": [part[0][1] for part in peer.get("subject", []) if part[0][0] == "commonName"],
                "body": len(body),
                "digest": hashlib.md5(body).hexdigest(),
            }
            line = json.dumps(seen)
            print(line, flush=True)
            path, _, query = target.partition("?")
            if path.startswith("/big"):
                answer = pattern(int(query))
            elif path.startswith("/echo"):
                answer = body
            else:
                answer = line.encode()
            if path.startswith("/open"):
                # The body lasts as long as the connection; `cut` leaves the goodbye out.
                connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + answer)
                if query != "cut":
                    connection.unwrap()
                break
            if path.startswith("/chunked"):
                answer = pattern(int(query))
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for at in range(0, len(answer), 5000):
                    piece = answer[at : at + 5000]
                    connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                connection.sendall(b"0\r\n\r\n")
                continue
            if method == "HEAD":
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer))
                continue
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
    except (OSError, ssl.SSLError) as error:
        print(json.dumps({"broke": str(error)}), flush=True)
    stream.close()
    connection.close()


listener = socket.create_server(("127.0.0.1", 0), backlog=64)
print(listener.getsockname()[1], flush=True)
number = 0
while True:
    accepted, _ = listener.accept()
    number += 1
    threading.Thread(target=serve, args=(accepted, number), daemon=True).start()
