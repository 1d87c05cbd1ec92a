"""A shop for shop.yaml: logs in by a cookie, searches, takes orders. Only for trying things out."""

import itertools
import json
from http import cookies
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

SESSIONS = {}
NUMBERS = itertools.count(1)


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece

    def answer(self, status, value, **headers):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def session(self):
        jar = cookies.SimpleCookie(self.headers.get("cookie", ""))
        return jar["session"].value if "session" in jar else None

    def do_GET(self):
        path = urlsplit(self.path).path
        if path == "/search":
            self.answer(200, {"items": [{"id": next(NUMBERS) % 100} for _ in range(5)]})
        elif path == "/account":
            self.answer(200, {"hello": SESSIONS.get(self.session())})
        else:
            self.answer(200, {"path": path})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/login":
            session = f"s{next(NUMBERS)}"
            SESSIONS[session] = parse_qs(body.decode())["user"][0]
            self.answer(303, {}, location="/account", set_cookie=f"session={session}; Path=/")
        elif self.session() not in SESSIONS:
            self.answer(401, {"error": "who are you?"})
        elif self.path == "/cart":
            self.answer(201, {"added": json.loads(body)["item"]})
        elif self.headers.get("x-session") != self.session():
            self.answer(400, {"error": "not your session"})
        else:
            self.answer(200, {"paid": True, "order": next(NUMBERS)})

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024


if __name__ == "__main__":
    Server(("127.0.0.1", 9003), Shop).serve_forever()
