"""Does with Toxiproxy's Python client what its users do, and prints what came of it: the client is told
where the API is (argv[1]), proxies lead to a server that echoes (argv[2]). Times are told as whether they
were at least what they must be: how much longer they were is the machine's affair."""

import json
import socket
import sys
import time

from toxiproxy import Toxiproxy
from toxiproxy.api import APIConsumer

API, ECHO = sys.argv[1], sys.argv[2]
# Longer than anything here lasts that works.
PATIENCE_SECONDS = 20
# How often something is tried that must become so soon.
TRIES = 50


def connect(proxy):
    host, port = proxy.listen.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS)


def talk(proxy, text=b"hello"):
    """What comes back of a text, and after how long."""
    try:
        with connect(proxy) as connection:
            begin = time.monotonic()
            connection.sendall(text)
            came = b""
            while len(came) < len(text) and (part := connection.recv(65536)):
                came += part
            took = time.monotonic() - begin
            if came == text:
                return "echo", took
            return f"the first {len(came)} bytes" if text.startswith(came) else "nonsense", took
    except ConnectionResetError:
        return "reset", 0
    except ConnectionRefusedError:
        return "refused", 0


def slow(proxy, least, text=b"hello"):
    """Whether a text comes back, and not before its time."""
    came, took = talk(proxy, text)
    return f"{came}, {'not before' if took >= least else 'before'} {least} s"


def quick(proxy, most):
    """Whether a text comes back within a time; a busy machine may need several tries."""
    return any(came == "echo" and took < most for came, took in (talk(proxy) for _ in range(TRIES)))


def end(proxy, least):
    """Whether the end of a connection comes, and not before its time."""
    with connect(proxy) as connection:
        connection.sendall(b"hello")
        begin = time.monotonic()
        connection.shutdown(socket.SHUT_WR)
        came = b""
        while part := connection.recv(65536):
            came += part
        took = time.monotonic() - begin
        return f"{came.decode()} and the end, {'not before' if took >= least else 'before'} {least} s"


def refusal(what):
    try:
        what()
    except Exception as error:
        return f"{type(error).__name__}: {json.loads(error.args[0])['error']}"
    return "nothing"


def shown(proxy):
    return {
        name: (it.type, it.stream, it.toxicity, it.attributes)
        for name, it in sorted(proxy.toxics().items())
    }


server = Toxiproxy()
host, port = API.rsplit(":", 1)
server.update_api_consumer(host, int(port))
print("running:", server.running())
print("version:", json.loads(server.version())["version"])
print("proxies:", server.proxies())

print("\n# Proxies")
proxy = server.create(name="echo", upstream=ECHO)
print("created:", proxy.name, proxy.upstream == ECHO, proxy.enabled, proxy.listen.startswith("127.0.0.1:"))
print("through it:", talk(proxy)[0])
print("known:", sorted(server.proxies()), server.get_proxy("other"))
open_before = connect(proxy)
# Once another one is through, the first is open, too.
talk(proxy)
with proxy.down():
    print("down:", talk(proxy)[0])
    try:
        print("what was open:", open_before.recv(1))
    except ConnectionResetError:
        print("what was open:", b"")
print("up again:", talk(proxy)[0])

print("\n# Toxics")
proxy.add_toxic(type="latency", attributes={"latency": 200})
print("latency downstream:", slow(proxy, 0.2))
proxy.add_toxic(type="latency", stream="upstream", attributes={"latency": 100, "jitter": 0})
print("and upstream:", slow(proxy, 0.3))
print(shown(proxy))
print("removed:", proxy.destroy_toxic("latency_downstream"), proxy.destroy_toxic("latency_upstream"))
print("quick again:", quick(proxy, 0.1), shown(proxy))
for name, kind, stream, attributes, effect in [
    ("rate", "bandwidth", "upstream", {"rate": 100}, lambda: slow(proxy, 0.15, b"x" * 20_000)),
    ("back", "bandwidth", "downstream", {"rate": 100}, lambda: slow(proxy, 0.15, b"x" * 20_000)),
    (
        "slices",
        "slicer",
        "upstream",
        {"average_size": 10, "size_variation": 0, "delay": 1000},
        lambda: slow(proxy, 0.04, b"x" * 500),
    ),
    ("end", "slow_close", "downstream", {"delay": 200}, lambda: end(proxy, 0.2)),
    ("short", "limit_data", "downstream", {"bytes": 3}, lambda: talk(proxy)[0]),
    ("silence", "timeout", "upstream", {"timeout": 100}, lambda: slow(proxy, 0.1)),
    ("reset", "reset_peer", "downstream", {"timeout": 0}, lambda: talk(proxy)[0]),
]:
    proxy.add_toxic(name=name, type=kind, stream=stream, attributes=attributes)
    toxic = proxy.get_toxic(name)
    print(f"{toxic.name} ({toxic.type} {toxic.stream}): {effect()}")
    proxy.destroy_toxic(name)
proxy.add_toxic(type="latency", toxicity=0.0, attributes={"latency": 60_000})
print("on no connection:", quick(proxy, 1), shown(proxy)["latency_downstream"][2])

print("\n# Errors")
print(refusal(lambda: APIConsumer.post("/proxies", json={"name": "echo", "upstream": ECHO})))
print(refusal(lambda: APIConsumer.get("/proxies/other")))
print(refusal(lambda: proxy.add_toxic(type="nonsense")))
print(refusal(lambda: proxy.add_toxic(type="latency", name="x", stream="sideways")))
print(refusal(lambda: proxy.add_toxic(type="latency", name="x", attributes={"latency": "long"})))
print(refusal(lambda: proxy.destroy_toxic("none")))
print(sorted(proxy.toxics()))

print("\n# Many")
proxy.add_toxic(type="latency", name="forever", attributes={"latency": 60_000})
made = server.populate(
    [
        {"name": "echo", "upstream": ECHO, "listen": proxy.listen},
        {"name": "two", "upstream": ECHO, "listen": "127.0.0.1:0"},
        {"name": "three", "upstream": ECHO, "listen": "127.0.0.1:0", "enabled": False},
    ]
)
print("populated:", [it.name for it in made], "of", sorted(server.proxies()))
two, three = made
print("through them:", talk(two)[0], talk(three)[0])
server.reset()
print("reset:", {it.name: (it.enabled, it.toxics()) for it in server.proxies().values()})
print("through them:", [talk(server.get_proxy(name))[0] for name in ("echo", "three", "two")])
print("removed:", server.destroy(two), talk(two)[0], sorted(server.proxies()))
server.destroy_all()
print("all:", server.proxies(), talk(proxy)[0])
