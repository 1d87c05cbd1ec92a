"""gRPC with grpcio, WebSockets with websockets and chunks with http.client, through the proxy."""

import http.client
import queue
import socket
import ssl
import sys

import grpc
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

plain, secure = sys.argv[1:3]
authority = open("ca.crt", "rb").read()


def ask(channel):
    method = lambda kind, name: getattr(channel, kind)(f"/test.Echo/{name}")
    answer, call = method("unary_unary", "Unary").with_call(b"hello", timeout=30)
    print("unary:", answer.decode(), dict(call.trailing_metadata()))
    print("several:", [it.decode() for it in method("unary_stream", "Several")(b"3", timeout=30)])
    # A message is sent only when the last one has been answered.
    messages = queue.Queue()
    messages.put(b"a")
    answered = []
    for it in method("stream_stream", "Each")(iter(messages.get, None), timeout=30):
        answered.append(it.decode())
        messages.put(it.lower() * 2 if len(answered) < 4 else None)
    print("each:", answered)
    large = (bytes(1 << 20) for _ in range(8))
    print("all:", method("stream_unary", "All")(large, timeout=30).decode())
    for name, request, timeout in [("Unary", b"refuse", 30), ("Silent", b"", 0.5), ("None", b"", 30)]:
        try:
            method("unary_unary", name)(request, timeout=timeout)
        except grpc.RpcError as error:
            print(f"{name}:", error.code().name)


print("== gRPC")
options = [("grpc.default_authority", "grpc.test")]
with grpc.insecure_channel(f"127.0.0.1:{plain}", options) as channel:
    ask(channel)

print("== gRPC over TLS")
options = [("grpc.ssl_target_name_override", "grpc.test")]
credentials = grpc.ssl_channel_credentials(authority)
with grpc.secure_channel(f"127.0.0.1:{secure}", credentials, options) as channel:
    ask(channel)

print("== WebSockets")
context = ssl.create_default_context(cadata=authority.decode())
for url, port, tls in [("ws://web.test/", plain, None), ("wss://web.test/", secure, context)]:
    with connect(url, sock=socket.create_connection(("127.0.0.1", int(port))), ssl=tls) as web:
        for message in ["text", bytes(300_000), ["in ", "several ", "pieces"]]:
            web.send(message)
        print(web.recv(), len(web.recv()), web.recv(), sep=", ")
        print("pong:", web.ping().wait(30))
        web.send("close")
        try:
            web.recv()
        except ConnectionClosed as closed:
            print("closed:", closed.rcvd.code, closed.rcvd.reason)

print("== Chunks")
connection = http.client.HTTPConnection("127.0.0.1", int(plain), timeout=30)
for _ in range(2):
    chunks = iter([b"one ", b"two ", b"x" * 200_000])
    connection.request("POST", "/", chunks, {"Host": "chunks.test"}, encode_chunked=True)
    answer = connection.getresponse()
    body = answer.read()
    print(answer.status, answer.getheader("Transfer-Encoding"), body[:8].decode(), len(body))
