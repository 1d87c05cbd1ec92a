"""asyncnsq. Its TLS asks Python for what Python no longer has, and its readers do not connect again."""

import asyncio
import sys

import asyncnsq
import asyncnsq.tcp.connection

import scenario
from servers import ask

LOOP = asyncio.new_event_loop()
asyncio.set_event_loop(LOOP)


def run(coroutine):
    return LOOP.run_until_complete(coroutine)


class Message:
    def __init__(self, message):
        self.message, self.body, self.attempts = message, message.body, message.attempts

    def finish(self):
        run(self.message.fin())
        return True

    def requeue(self):
        run(self.message.req(0))


class Writer:
    def __init__(self, address, **options):
        host, port = address.rsplit(":", 1)
        self.writer = run(asyncnsq.create_writer(host=host, port=int(port), **options))

    def again(self):
        # It connects again when it has something to publish.
        return self

    def pub(self, topic, body):
        return run(self.writer.pub(topic, body)).decode()

    def mpub(self, topic, bodies):
        return run(self.writer.mpub(topic, *bodies)).decode()

    def dpub(self, topic, milliseconds, body):
        return run(self.writer.dpub(topic, milliseconds, body)).decode()

    def close(self):
        self.writer.close()


class Reader:
    def __init__(self, topic, channel, address=None, lookupd=None, **options):
        self.arguments = (topic, channel, address, lookupd, options)

        async def make():
            if lookupd:
                host, port = lookupd.rsplit(":", 1)
                options["lookupd_http_addresses"] = [(host, int(port))]
            reader = await asyncnsq.create_reader(
                nsqd_tcp_addresses=[address] if address else None, max_in_flight=10, **options
            )
            await reader.subscribe(topic, channel)
            return reader

        self.reader = run(make())
        self.messages = self.reader.messages()

    def again(self):
        self.close()
        topic, channel, address, lookupd, options = self.arguments
        return Reader(topic, channel, address, lookupd, **options)

    def next(self):
        return Message(run(anext(self.messages)))

    def close(self):
        self.reader.close()


class Client:
    def ask(self, *words):
        ask(*words, readline=lambda: run(asyncio.to_thread(sys.stdin.readline)))

    transports = {"Snappy": {"snappy": True}, "Deflate": {"deflate": True}}

    writer, reader = Writer, Reader

    def secret(self, text):
        return {"auth_secret": text}

    def refused(self, address, secret):
        try:
            Writer(address, auth_secret=secret)
        except Exception as error:
            return f"{type(error).__name__}: {error}"


# It prints on standard output when a connection ends.
asyncnsq.tcp.connection.print = lambda *words: print(*words, file=sys.stderr)
CLIENT = Client()
scenario.run(CLIENT)
scenario.guarded(CLIENT)
