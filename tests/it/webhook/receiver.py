"""A receiver that verifies what it gets; prints its URL and serves until killed."""

import os
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks import Webhook

webhook = Webhook(os.environ["WEBHOOK_SECRET"])


class Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            webhook.verify(body, {k.lower(): v for k, v in self.headers.items()})
            self.send_response(204)
            self.end_headers()
        except Exception as error:
            self.send_response(401)
            self.end_headers()
            self.wfile.write(str(error).encode())

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Hook)
print(f"http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
