"""The clients of the soak that wrk and h2load can't play, each in a loop until its process is ended.

All check what they get byte by byte; what is not as it should be is a failure with its reason. They use HTTP/1 over
plain sockets and TLS.
"""

import asyncio
import hashlib
import random
import socket
import ssl
import struct
import time

TEN = 10 * 1024 * 1024


def content(length, seed):
    return random.Random(seed).randbytes(length)


class Tally:
    """What happened since the last report, for the main process."""

    def __init__(self, queue, name):
        self.queue, self.name, self.done, self.failures, self.times = queue, name, 0, [], []
        self.reported = time.monotonic()

    def ok(self, seconds=None):
        self.done += 1
        if seconds is not None:
            self.times.append(seconds)
        self.report()

    def failed(self, reason):
        self.failures.append(reason)
        self.report()

    def report(self):
        if time.monotonic() - self.reported >= 1:
            self.queue.put((self.name, self.done, self.failures, self.times))
            self.done, self.failures, self.times, self.reported = 0, [], [], time.monotonic()


# --- the good client: what an honest user notices


def good(queue, port, interval):
    """Keeps its connection, asks for a small file every `interval` seconds, and takes the time."""
    tally, expected = Tally(queue, "good"), content(1024, 1)
    request = b"GET /1k.bin HTTP/1.1\r\nHost: soak\r\n\r\n"
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 10) as one:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for _ in range(500):
                    begin = time.monotonic()
                    one.sendall(request)
                    answer = b""
                    while not answer.endswith(expected):
                        part = one.recv(65536)
                        if not part:
                            raise OSError(f"closed after {len(answer)} bytes")
                        answer += part
                    tally.ok(time.monotonic() - begin)
                    time.sleep(interval)
        except OSError as error:
            tally.failed(f"good: {error!r}")
            time.sleep(0.1)


# --- the others, in one event loop


class Loop:
    def __init__(self, queue, ports, contents):
        self.queue, self.ports, self.contents, self.tallies = queue, ports, contents, {}
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE

    def tally(self, name):
        return self.tallies.setdefault(name, Tally(self.queue, name))

    async def open(self, secure=False):
        if secure:
            return await asyncio.open_connection("127.0.0.1", self.ports["tls"], ssl=self.tls, limit=1 << 18)
        return await asyncio.open_connection("127.0.0.1", self.ports["plain"], limit=1 << 18)

    async def again(self, name, act, pause):
        """Runs `act` again and again, `pause` seconds (at random, on average) apart."""
        await asyncio.sleep(random.random() * pause)
        while True:
            try:
                await asyncio.wait_for(act(), 120)
                self.tally(name).ok()
            except Exception as error:  # noqa: BLE001 - whatever it was, it is told
                self.tally(name).failed(f"{name}: {error!r}")
            await asyncio.sleep(random.random() * 2 * pause)


async def read_head(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    return int(head.split(" ")[1]), fields


async def read_body(reader, fields):
    if "content-length" in fields:
        return await reader.readexactly(int(fields["content-length"]))
    body = b""
    while True:
        size = int((await reader.readline()).split(b";")[0], 16)
        body += await reader.readexactly(size)
        await reader.readexactly(2)
        if size == 0:
            return body


def expect(condition, what):
    if not condition:
        raise ValueError(what)


async def handshake(loop):
    """A connection of its own over TLS, one request."""
    reader, writer = await loop.open(True)
    writer.write(b"GET /1k.bin HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n")
    status, fields = await read_head(reader)
    body = await read_body(reader, fields)
    expect(status == 200 and body == loop.contents["1k"], f"{status}, {len(body)} bytes")
    writer.close()


async def upload(loop, secure, path):
    """A body in pieces with pauses, with its length or in chunks; the answer is its digest."""
    reader, writer = await loop.open(secure)
    body = random.randbytes(random.choice([1000, 70_000, 300_000, 1_500_000]))
    chunked = random.random() < 0.5
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    writer.write(f"POST {path} HTTP/1.1\r\nHost: soak\r\n{framing}\r\nConnection: close\r\n\r\n".encode())
    step = max(len(body) // 20, 1)
    for at in range(0, len(body), step):
        piece = body[at:at + step]
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        await writer.drain()
        await asyncio.sleep(random.random() * 0.2)
    if chunked:
        writer.write(b"0\r\n\r\n")
    status, fields = await read_head(reader)
    said = await read_body(reader, fields)
    expect(status == 200 and said.decode() == hashlib.sha256(body).hexdigest(), f"{status} {said[:80]!r}")
    writer.close()


async def put(loop):
    """A file put by WebDAV, fetched and deleted again on one connection."""
    reader, writer = await loop.open()
    name, body = f"/dav/{random.getrandbits(64):x}.bin", random.randbytes(200_000)
    for line, sent, expected in [("PUT", body, 201), ("GET", b"", 200), ("DELETE", b"", 204)]:
        writer.write(f"{line} {name} HTTP/1.1\r\nHost: soak\r\nContent-Length: {len(sent)}\r\n\r\n".encode() + sent)
        await writer.drain()
        status, fields = await read_head(reader)
        got = b"" if status == 204 else await read_body(reader, fields)
        expect(status == expected and (line != "GET" or got == body), f"{line} {status}")
    writer.close()


async def abort(loop, secure, path):
    """A download that is given up within its body, by a close or a reset."""
    reader, writer = await loop.open(secure)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: soak\r\nAccept-Encoding: gzip\r\n\r\n".encode())
    await reader.readexactly(random.randrange(1, 200_000))
    if random.random() < 0.5:
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def abort_upload(loop):
    """An upload that is given up."""
    _, writer = await loop.open()
    writer.write(b"POST /upload HTTP/1.1\r\nHost: soak\r\nContent-Length: 900000\r\n\r\n" + bytes(300_000))
    await writer.drain()
    await asyncio.sleep(random.random() * 0.3)
    writer.transport.abort()


async def slow_download(loop, secure, path):
    """A long download at about half a megabyte a second: longer than it takes until the next reload."""
    reader, writer = await loop.open(secure)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n".encode())
    status, fields = await read_head(reader)
    digest, left = hashlib.sha256(), int(fields["content-length"])
    expect((status, left) == (200, TEN), f"{status} {left}")
    while left:
        part = await reader.read(min(left, 65536))
        expect(part, f"closed with {left} bytes to come")
        digest.update(part)
        left -= len(part)
        await asyncio.sleep(len(part) / 500_000)
    expect(digest.digest() == loop.contents["10m"], "other bytes")
    writer.close()


async def tunnel(loop, secure, seconds):
    """A WebSocket that echoes; it stays open over reloads."""
    reader, writer = await loop.open(secure)
    writer.write(b"GET /socket HTTP/1.1\r\nHost: soak\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                 b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    status, _ = await read_head(reader)
    expect(status == 101, f"{status}")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        message = random.randbytes(random.choice([10, 1000, 50_000]))
        writer.write(message)
        expect(await reader.readexactly(len(message)) == message, "other bytes came back")
        loop.tally("tunnel message").ok()
        await asyncio.sleep(0.2 + random.random())
    writer.close()


def others(queue, ports, contents):
    async def run():
        loop = Loop(queue, ports, contents)
        tasks = [loop.again("handshake", lambda: handshake(loop), 0.2)]
        for secure in (False, True):
            tasks += [loop.again("upload", lambda s=secure: upload(loop, s, "/upload"), 1) for _ in range(3)]
            tasks += [loop.again("streamed upload", lambda s=secure: upload(loop, s, "/stream"), 1)]
            for path in ("/10m.bin", "/proxied/10m.bin", "/gzip/text.html"):
                tasks += [loop.again("aborted", lambda s=secure, p=path: abort(loop, s, p), 0.5)]
            for path in ("/10m.bin", "/proxied/10m.bin"):
                tasks += [loop.again("slow download", lambda s=secure, p=path: slow_download(loop, s, p), 1)]
            # Some stay for a few minutes each, which is over several reloads.
            tasks += [loop.again("tunnel", lambda s=secure: tunnel(loop, s, 100), 1) for _ in range(8)]
        tasks += [loop.again("put", lambda: put(loop), 1) for _ in range(2)]
        tasks += [loop.again("aborted upload", lambda: abort_upload(loop), 1)]
        await asyncio.gather(*tasks)

    asyncio.run(run())


# --- what the proxied requests reach


def upstream(port):
    """Answers a POST with the digest of its body, and echoes what is upgraded."""

    async def serve(reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                if "upgrade" in fields:
                    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
                    while part := await reader.read(65536):
                        writer.write(part)
                        await writer.drain()
                    return
                body = await read_body(reader, fields)
                digest = hashlib.sha256(body).hexdigest().encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(digest), digest))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def run():
        server = await asyncio.start_server(serve, "127.0.0.1", port, limit=1 << 18, backlog=1024)
        await server.serve_forever()

    asyncio.run(run())
