"""What is asked through the proxy: gRPC at 50051, WebSockets at 8001, HTTP/1.1 at 8000. Says back what it is told."""

import http.server
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from websockets.sync.server import serve


def unary(request, context):
    context.set_trailing_metadata((("said", "after"),))
    if request == b"refuse":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")
    return request.upper()


def several(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def each(requests, context):
    for request in requests:
        yield request.upper()


def all_of_them(requests, context):
    return str(sum(len(it) for it in requests)).encode()


def silent(request, context):
    threading.Event().wait(30)
    return b""


def converse(socket):
    for message in socket:
        if message == "close":
            socket.close(4001, "as asked")
        socket.send(message)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        """Each chunk is answered with one before the next is read."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while length := int(self.rfile.readline(), 16):
            chunk = self.rfile.read(length + 2)
            self.wfile.write(b"%x\r\n" % length + chunk.upper())
        self.rfile.readline()
        self.wfile.write(b"0\r\n\r\n")

    def do_GET(self):
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Several": grpc.unary_stream_rpc_method_handler(several),
    "Each": grpc.stream_stream_rpc_method_handler(each),
    "All": grpc.stream_unary_rpc_method_handler(all_of_them),
    "Silent": grpc.unary_unary_rpc_method_handler(silent),
}
server = grpc.server(ThreadPoolExecutor())
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
server.add_insecure_port("0.0.0.0:50051")
server.start()
threading.Thread(target=serve(converse, "0.0.0.0", 8001).serve_forever, daemon=True).start()
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
