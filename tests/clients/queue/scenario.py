"""What users do with any client for Python. A client is given as an object that says the same things in the
client's own words:

* `writer(address, **options)`: has `pub(topic, body)`, `mpub(topic, bodies)` and `dpub(topic, milliseconds,
  body)`, which return nsqd's answer, `again()`, which is a writer that is connected after nsqd has been
  killed and started, and `close()`;
* `reader(topic, channel, address=None, lookupd=None, **options)`: has `next()`, which returns a message,
  `again()` and `close()`;
* a message has `body`, `attempts`, `requeue()` and `finish()`, which says whether there still was a connection
  to finish it;
* `ask`: as `servers.ask`, while the client goes on;
* `transports`: names and options;
* `secret(text)`: options to say a secret; `refused(address, secret)`: what comes of a wrong one. Not for a
  client that cannot do it.

Times are told as whether they were at least what they must be: how much longer they were is the machine's
affair."""

import time

from servers import AT

# Deferred for so long.
LATER_MILLISECONDS = 300
# Larger than any buffer on the way, and well compressible.
LARGE = b"0123456789" * 30_000
SEVERAL = [b"m%d" % number for number in range(20)]


def one(reader):
    message = reader.next()
    return f"{message.body.decode()}, attempt {message.attempts}", message


def run(client):
    ask = client.ask
    print("# Publishing and consuming")
    ask("topic", "plain")
    writer = client.writer(AT["tcp"])
    reader = client.reader("plain", "workers", address=AT["tcp"])
    print("published:", writer.pub("plain", b"one"))
    seen, message = one(reader)
    print("consumed:", seen)
    message.requeue()
    seen, message = one(reader)
    print("requeued:", seen)
    message.finish()
    print("several:", writer.mpub("plain", [b"x", b"y", b"z"]))
    bodies = []
    for _ in range(3):
        message = reader.next()
        bodies.append(message.body.decode())
        message.finish()
    print("consumed:", *sorted(bodies))
    begin = time.monotonic()
    print("deferred:", writer.dpub("plain", LATER_MILLISECONDS, b"later"))
    seen, message = one(reader)
    late = (time.monotonic() - begin) * 1000 >= LATER_MILLISECONDS
    print("consumed:", seen, "in time" if late else "too early")
    message.finish()
    ask("finished", "plain", "workers")
    reader.close()

    print("\n# Through nsqlookupd")
    ask("topic", "found")
    reader = client.reader("found", "workers", lookupd=AT["lookupd"])
    print("published:", writer.pub("found", b"found"))
    seen, message = one(reader)
    print("consumed:", seen)
    message.finish()
    ask("finished", "found", "workers")
    reader.close()

    print("\n# Killed")
    ask("topic", "kept")
    reader = client.reader("kept", "workers", address=AT["tcp"])
    print("published:", *{writer.pub("kept", body) for body in SEVERAL})
    finished = set()
    for _ in SEVERAL[:5]:
        message = reader.next()
        finished.add(message.body)
        message.finish()
    print("consumed:", len(finished))
    # Once it has read all that it was sent, its end closes connections; otherwise it resets them, and on that
    # ansq tries to read for ever.
    ask("left", "kept", "workers", str(len(SEVERAL) - len(finished)))
    ask("kill")
    ask("start")
    writer, reader = writer.again(), reader.again()
    ask("subscribed", "kept", "workers")
    print("published:", writer.pub("kept", b"after"))
    # What was finished a few milliseconds before the kill may come again.
    left = {*SEVERAL, b"after"} - finished
    while left:
        message = reader.next()
        if message.finish():
            left.discard(message.body)
    print("consumed: all that were left")
    ask("finished", "kept", "workers")
    reader.close()
    writer.close()

    for number, (name, options) in enumerate(client.transports.items()):
        print("\n# " + name)
        topic = f"transport-{number}"
        ask("topic", topic)
        writer = client.writer(AT["tcp"], **options)
        reader = client.reader(topic, "workers", address=AT["tcp"], **options)
        print("published:", writer.pub(topic, b"small"), writer.pub(topic, LARGE))
        bodies = set()
        for _ in range(2):
            message = reader.next()
            bodies.add(message.body)
            message.finish()
        print("consumed:", "the same" if bodies == {b"small", LARGE} else "something else")
        ask("finished", topic, "workers")
        reader.close()
        writer.close()


def guarded(client):
    print("\n# With a secret")
    options = client.secret(AT["secret"])
    writer = client.writer(AT["guarded"], **options)
    print("published:", writer.pub("guarded", b"for me"))
    reader = client.reader("guarded", "workers", address=AT["guarded"], **options)
    seen, message = one(reader)
    print("consumed:", seen)
    message.finish()
    reader.close()
    writer.close()
    print("a wrong one:", client.refused(AT["guarded"], "wrong"))
