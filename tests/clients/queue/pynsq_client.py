"""pynsq: callbacks on tornado's loop, which is asyncio's."""

import asyncio
import ssl
import sys

import nsq

import scenario
from servers import AT, ask

LOOP = asyncio.new_event_loop()
asyncio.set_event_loop(LOOP)
# How soon a writer connects again, in seconds. Readers do after 15, so new ones are made.
RECONNECT_SECONDS = 0.05


def run(coroutine):
    return LOOP.run_until_complete(coroutine)


class Message:
    def __init__(self, message):
        self.message, self.body, self.attempts = message, message.body, message.attempts

    def finish(self):
        self.message.finish()
        return True

    def requeue(self):
        # Backing off would have the client wait before it takes the next one.
        self.message.requeue(backoff=False, delay=0)


class Writer:
    def __init__(self, address, **options):
        async def make():
            return nsq.Writer([address], reconnect_interval=RECONNECT_SECONDS, **options)

        self.writer = run(make())
        self.again()

    def again(self):
        async def connected():
            while not any(it.connected() for it in self.writer.conns.values()):
                await asyncio.sleep(0.01)

        run(connected())
        return self

    def _answer(self, publish, *arguments):
        async def answer():
            answer = LOOP.create_future()
            publish(*arguments, callback=lambda _, data: answer.set_result(data))
            return await answer

        answer = run(answer())
        return answer.decode() if isinstance(answer, bytes) else repr(answer)

    def pub(self, topic, body):
        return self._answer(self.writer.pub, topic, body)

    def mpub(self, topic, bodies):
        return self._answer(self.writer.mpub, topic, bodies)

    def dpub(self, topic, milliseconds, body):
        return self._answer(self.writer.dpub, topic, milliseconds, body)

    def close(self):
        # Or it would connect again.
        self.writer.reconnect_interval = 1_000_000
        for connection in list(self.writer.conns.values()):
            connection.close()


class Reader:
    def __init__(self, topic, channel, address=None, lookupd=None, **options):
        self.arguments = (topic, channel, address, lookupd, options)
        self.messages = asyncio.Queue()

        def handle(message):
            message.enable_async()
            self.messages.put_nowait(Message(message))

        async def make():
            return nsq.Reader(
                message_handler=handle,
                topic=topic,
                channel=channel,
                nsqd_tcp_addresses=[address] if address else [],
                lookupd_http_addresses=[f"http://{lookupd}"] if lookupd else [],
                max_in_flight=10,
                **options,
            )

        self.reader = run(make())

    def again(self):
        self.close()
        topic, channel, address, lookupd, options = self.arguments
        return Reader(topic, channel, address, lookupd, **options)

    def next(self):
        return run(self.messages.get())

    def close(self):
        self.reader.close()


class Client:
    def ask(self, *words):
        ask(*words, readline=lambda: run(asyncio.to_thread(sys.stdin.readline)))

    _tls = {"tls_v1": True, "tls_options": {"ca_certs": AT["ca"], "cert_reqs": ssl.CERT_REQUIRED}}
    transports = {
        "TLS": _tls,
        "Snappy": {"snappy": True},
        "Deflate": {"deflate": True, "deflate_level": 6},
        "TLS and Snappy": {**_tls, "snappy": True},
        "TLS and Deflate": {**_tls, "deflate": True, "deflate_level": 6},
    }

    writer, reader = Writer, Reader

    def secret(self, text):
        return {"auth_secret": text}

    def refused(self, address, secret):
        async def refusal():
            refusal = LOOP.create_future()
            connection = nsq.AsyncConn(*host_port(address), auth_secret=secret)
            connection.on("error", lambda error, **_: refusal.done() or refusal.set_result(error))
            # As its Writer does.
            connection.on("identify_response", lambda conn, data, **_: None)
            connection.connect()
            return await refusal

        return run(refusal()).args[0].decode()


def host_port(address):
    host, port = address.rsplit(":", 1)
    return host, int(port)


CLIENT = Client()
scenario.run(CLIENT)
scenario.guarded(CLIENT)
