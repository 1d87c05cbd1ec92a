"""The other ways into nsqd: HTTPS, with Python's own client, and Unix sockets, with that client's HTTP and with
asyncnsq's connection, which takes any stream."""

import asyncio
import http.client
import json
import socket
import ssl
import sys
import urllib.error
import urllib.request

import asyncnsq.tcp.connection
from asyncnsq.tcp.connection import TcpConnection

from servers import AT, ask

TRUSTED = ssl.create_default_context(cafile=AT["ca"])
TIMEOUT_SECONDS = 30
# asyncnsq prints on standard output when a connection ends.
asyncnsq.tcp.connection.print = lambda *words: print(*words, file=sys.stderr)


def https(target, body=None, context=TRUSTED):
    url = f"https://{AT['https']}{target}"
    try:
        with urllib.request.urlopen(url, body, TIMEOUT_SECONDS, context=context) as answer:
            return f"{answer.status} {answer.read().decode()}"
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()}"
    except urllib.error.URLError as error:
        return f"{type(error.reason).__name__}: {error.reason.reason}"


class UnixConnection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_SECONDS)
        self.sock.connect(AT["http_socket"])


def unix(method, target, body=None):
    connection = UnixConnection("nsqd")
    connection.request(method, target, body)
    answer = connection.getresponse()
    said = f"{answer.status} {answer.read().decode()}"
    connection.close()
    return said


def depths(stats):
    topics = json.loads(stats.split(" ", 1)[1])["topics"]
    return {it["topic_name"]: it["depth"] for it in topics}


print("# HTTPS")
print("ping:", https("/ping"))
print("published:", https("/pub?topic=doors", b"one"), https("/mpub?topic=doors", b"two\nthree"))
print("waiting:", depths(https("/stats?format=json")))
print("unknown:", https("/nothing"))
print("a bad topic:", https("/pub?topic=a%20b", b"one"))
print("not trusted:", https("/ping", context=ssl.create_default_context()))

print("\n# Unix sockets")
ask("sockets")
print("ping:", unix("GET", "/ping"))
print("published:", unix("POST", "/pub?topic=doors", b"over HTTP"))


async def publish():
    connection = await connect()
    answer = await connection.execute(b"PUB", "doors", data=b"over TCP's protocol")
    connection.close()
    return answer.decode()


async def consume():
    connection = await connect()
    await connection.execute(b"SUB", "doors", "workers")
    await connection.execute(b"RDY", 10)
    bodies = []
    for _ in range(2):
        message = await connection.queue.get()
        bodies.append(message.body.decode())
        await message.fin()
    # Answered after nsqd has read all that was sent before.
    answer = await connection.execute(b"CLS")
    connection.close()
    return sorted(bodies), answer.decode()


async def connect():
    reader, writer = await asyncio.open_unix_connection(AT["tcp_socket"])
    connection = TcpConnection(reader, writer, AT["tcp_socket"], 0, queue=asyncio.Queue())
    connection.connect()
    await connection.identify(feature_negotiation=True)
    return connection


print("published:", asyncio.run(publish()))
# Killed, it leaves its sockets behind.
ask("sockets")
print("started again:", depths(unix("GET", "/stats?format=json")))
print("consumed:", asyncio.run(consume()))
print("left:", depths(unix("GET", "/stats?format=json")))
