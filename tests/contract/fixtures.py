"""What there is to find: queues, topics, messages in every state.

The same names are in schemathesis.toml, which sends most requests to them.
"""

import json
import urllib.error
import urllib.request

QUEUES = ("orders", "jobs", "shop.audit", "lined")
ORDERED = "lined"
FILLED = ("orders", "jobs", ORDERED)
TOPIC = "shop"
SCHEDULE = "nightly"
# What has a schema, and nothing else.
CHECKED = "checked"
# What has a webhook; only that takes its messages.
PUSHED = "orders"


def settings(queue):
    """Those that a queue is made with."""
    return {"ordered": True, "on_blocked": "dead_letter_key"} if queue == ORDERED else {}


class Client:
    """Calls that have to work."""

    def __init__(self, url, key=None):
        self.url = url
        self.key = key

    def call(self, method, path, body=None, gone=False):
        """The answer; with `gone` it may be that there is nothing there."""
        headers = {"content-type": "application/json"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(
            self.url + path,
            method=method,
            headers=headers,
            data=None if body is None else json.dumps(body).encode(),
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            if gone and error.code == 404:
                return None
            raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()}")
        return json.loads(text) if text else None

    def make_all(self, hooks_url):
        self.call("PUT", f"/v1/topics/{TOPIC}", {"retention_seconds": 86400})
        for queue in FILLED:
            self.make_queue(queue)
        self.make_subscription()
        self.make_webhook(hooks_url)
        self.publish_topic()
        self.make_schedule()

    def make_schedule(self):
        settings = {"cron": "@yearly", "queue": "orders", "message": {"body": 1}}
        self.call("PUT", f"/v1/schedules/{SCHEDULE}", settings)

    def make_webhook(self, hooks_url):
        """A paused one, with an attempt to show."""
        path = f"/v1/queues/{PUSHED}"
        if self.call("GET", f"{path}/webhook", gone=True) is None:
            self.call("PUT", path, {})
            self.call("PUT", f"{path}/webhook", {"url": hooks_url})
            self.call("POST", f"{path}/webhook/test", {})
            self.call("POST", f"{path}/webhook/pause")

    def make_checked(self, kind, has_schema):
        """A queue or a topic, with a schema if it is to have one: its version."""
        path = f"/v1/{kind}s/{CHECKED}"
        self.call("PUT", path, {})
        if not has_schema:
            return None
        return self.call("PUT", f"{path}/schema", {"schema": {}})["version"]

    def ask(self):
        """A request whose reply is there: where it is."""
        path = "/v1/queues/asked"
        self.call("PUT", path, {})
        self.call("POST", f"{path}/purge", {})
        asked = self.call("POST", f"{path}/requests", {"body": 1, "timeout_seconds": 600})
        [message] = self.call("POST", f"{path}/receive", {"wait_seconds": 10})["messages"]
        reply = {"receipt": message["receipt"], "body": {"sum": 3}}
        self.call("POST", f"{path}/reply", reply)
        return asked["correlation_id"]

    def make_queue(self, queue):
        """With messages that are ready, delayed, leased and dead."""
        path = f"/v1/queues/{queue}"
        self.call("PUT", path, settings(queue))
        bodies = [{"body": n, "headers": {"shop": "eu"}, "key": f"k{n % 7}"} for n in range(20)]
        self.call("POST", f"{path}/messages", {"messages": bodies})
        self.call("POST", f"{path}/messages", {"body": "later", "delay_seconds": 3600})
        leased = self.call(
            "POST", f"{path}/receive", {"max_messages": 10, "lease_seconds": 3600}
        )
        receipts = [message["receipt"] for message in leased["messages"]]
        self.call(
            "POST",
            f"{path}/nack",
            {"receipts": receipts[:5], "dead_letter": True, "reason": "bad"},
        )

    def make_subscription(self):
        path = f"/v1/topics/{TOPIC}/subscriptions/audit"
        self.call("PUT", path, {"filter": {"routing_key": "orders.#"}})

    def publish_topic(self):
        bodies = [{"body": n, "routing_key": "orders.paid"} for n in range(5)]
        self.call("POST", f"/v1/topics/{TOPIC}/messages", {"messages": bodies})
