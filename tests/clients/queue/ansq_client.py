"""ansq. It does neither TLS nor compression. It says a secret, but then does nothing with its connection: it
never notes that it was accepted."""

import asyncio
import sys

import ansq

import scenario
from servers import AT, ask

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
    def __init__(self, address):
        self.address = address
        self.writer = run(ansq.create_writer(nsqd_tcp_addresses=[address]))

    def again(self):
        # It would connect again by itself, but only says that it is connected, not since when.
        self.close()
        return Writer(self.address)

    def pub(self, topic, body):
        return run(self.writer.pub(topic, body)).body.decode()

    def mpub(self, topic, bodies):
        return run(self.writer.mpub(topic, *bodies)).body.decode()

    def dpub(self, topic, milliseconds, body):
        return run(self.writer.dpub(topic, body, milliseconds)).body.decode()

    def close(self):
        run(self.writer.close())


class Reader:
    def __init__(self, topic, channel, address=None, lookupd=None):
        self.reader = run(
            ansq.create_reader(
                topic=topic,
                channel=channel,
                nsqd_tcp_addresses=[address] if address else None,
                lookupd_http_addresses=[lookupd] if lookupd else None,
            )
        )

    def again(self):
        # It connects again by itself.
        return self

    def next(self):
        return Message(run(self.reader.message_queue.get()))

    def close(self):
        run(self.reader.close())


class Client:
    def ask(self, *words):
        ask(*words, readline=lambda: run(asyncio.to_thread(sys.stdin.readline)))

    transports = {}

    writer, reader = Writer, Reader


def auth(address, secret):
    async def auth():
        host, port = address.rsplit(":", 1)
        connection = await ansq.open_connection(host, int(port))
        answer = await connection.auth(secret)
        await connection.close()
        return answer

    return run(auth())


scenario.run(Client())
print("\n# With a secret")
print("said:", auth(AT["guarded"], AT["secret"]).body.decode())
refusal = auth(AT["guarded"], "wrong")
print("a wrong one:", refusal.code, refusal.body.decode())
