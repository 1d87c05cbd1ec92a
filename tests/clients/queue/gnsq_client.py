"""gnsq: greenlets."""

import logging
import ssl
import sys

import gevent
import gevent.queue
import gnsq
import gnsq.errors

import scenario
from servers import AT, ask


class Message:
    def __init__(self, message):
        self.message, self.body, self.attempts = message, message.body, message.attempts

    def finish(self):
        try:
            self.message.finish()
        except gnsq.errors.NSQSocketError:
            # It came over a connection that is no more.
            return False
        return True

    def requeue(self):
        # Backing off would have the client wait before it takes the next one.
        self.message.requeue(backoff=False)


class Writer:
    def __init__(self, address, **options):
        self.producer = gnsq.Producer([address], **options)
        self.producer.start()

    def again(self):
        # It connects again by itself, and publishing waits for that.
        return self

    def pub(self, topic, body):
        return self.producer.publish(topic, body).decode()

    def mpub(self, topic, bodies):
        return self.producer.multipublish(topic, bodies).decode()

    def dpub(self, topic, milliseconds, body):
        return self.producer.publish(topic, body, defer=milliseconds).decode()

    def close(self):
        self.producer.close()


class Connection:
    """What a producer has inside. With a producer itself, TLS and compression do not work: it takes the `OK` to
    their beginning for that of a message."""

    def __init__(self, address, **options):
        host, port = address.rsplit(":", 1)
        self.connection = gnsq.NsqdTCPClient(host, int(port), **options)
        self.connection.connect()
        self.connection.identify()

    def pub(self, topic, body):
        self.connection.publish(topic, body)
        return self.connection.read_response()[1].decode()

    def close(self):
        self.connection.close_stream()


class Reader:
    def __init__(self, topic, channel, address=None, lookupd=None, **options):
        self.messages = gevent.queue.Queue()
        self.consumer = gnsq.Consumer(
            topic,
            channel,
            nsqd_tcp_addresses=[address] if address else [],
            lookupd_http_addresses=[f"http://{lookupd}"] if lookupd else [],
            message_handler=self._handle,
            max_in_flight=10,
            **options,
        )
        self.consumer.start(block=False)

    def _handle(self, _consumer, message):
        message.enable_async()
        self.messages.put(Message(message))

    def again(self):
        # It connects again by itself.
        return self

    def next(self):
        return self.messages.get()

    def close(self):
        self.consumer.close()


class Client:
    def ask(self, *words):
        ask(*words, readline=lambda: gevent.get_hub().threadpool.apply(sys.stdin.readline))

    _tls = {"tls_v1": True, "tls_options": {"ca_certs": AT["ca"], "cert_reqs": ssl.CERT_REQUIRED}}
    transports = {
        "TLS": _tls,
        "Snappy": {"snappy": True},
        "Deflate": {"deflate": True},
        "TLS and Snappy": {**_tls, "snappy": True},
        "TLS and Deflate": {**_tls, "deflate": True},
    }

    reader = Reader

    def writer(self, address, **options):
        return (Connection if options in self.transports.values() else Writer)(address, **options)

    def secret(self, text):
        return {"auth_secret": text.encode()}

    def refused(self, address, secret):
        try:
            Connection(address, **self.secret(secret))
        except gnsq.errors.NSQException as error:
            return f"{type(error).__name__}: {error.args[0].decode()}"


logging.basicConfig(level=logging.INFO)
CLIENT = Client()
scenario.run(CLIENT)
scenario.guarded(CLIENT)
