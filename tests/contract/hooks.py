"""Keeps the fuzzing short and its targets alive, and says what JSON Schema cannot.

A request that fits the document has to be taken (`positive_data_acceptance`). Some
rules of the API have no words in JSON Schema: sizes in bytes, one number beside
another, times seen from now. `within_the_rules` makes valid requests fit those too;
each line of it is a sentence in the document's descriptions.
"""

import datetime
import os
import uuid

import schemathesis
import fixtures
import taken

client = fixtures.Client(os.environ["FUZZ_URL"], os.environ.get("FUZZ_KEY"))
hooks_url = os.environ["FUZZ_HOOKS_URL"]

own_key = (client.key or "pr__").split("_")[1]

# Seconds: a receiver that waits longer finds nothing more.
LONGEST_WAIT = 0.02

# Characters of a receipt: one that has this many is real already.
RECEIPT_LENGTH = 50

# Cursors are opaque, so a document cannot describe them; these are good ones.
NAME_CURSOR = "bmE"
VERSION_CURSOR = "bjE"
READY_CURSOR = "cgAAAAAAAAAAAAAAAAAAAAE"
TIME_CURSOR = "dAAGAAAAAAAAAAAAAAAAAAE"
STREAM_CURSOR = "cwAAAAAAAAAAAAAAAAAAAAE"


def in_phase(case, name):
    return case.meta is not None and case.meta.phase.name.value == name


def is_valid(case):
    return case.meta is None or case.meta.generation.mode.is_positive


@schemathesis.hook
def before_load_schema(ctx, raw_schema):
    # With --auth off the gateway asks nobody for a key, as the document says.
    if client.key is None:
        for path in raw_schema["paths"].values():
            for operation in path.values():
                operation.pop("security", None)


@schemathesis.hook
def before_call(ctx, case, kwargs):
    # The key that all this is asked with stays.
    names = case.path_parameters or {}
    if case.path.startswith("/v1/keys/") and names.get("id") == own_key:
        names["id"] = "000000000000"
    if is_valid(case):
        within_the_rules(case)
    # Up to a minute is fine, and there is no time for it.
    for waiting in (case.query, case.body):
        if isinstance(waiting, dict):
            wait = waiting.get("wait_seconds")
            if isinstance(wait, (int, float)) and LONGEST_WAIT < wait < 61:
                # A little too long is a millisecond's fraction, which does not count.
                waiting["wait_seconds"] = LONGEST_WAIT if wait <= 60 else 61
    if "wait" in str((case.headers or {}).get("Prefer")).lower():
        case.headers["Prefer"] = "respond-async"
    body = case.body
    if not isinstance(body, dict):
        return
    # Nobody else's server is pushed to.
    for holder in (body, body.get("webhook")):
        if isinstance(holder, dict) and str(holder.get("url")).startswith("http"):
            holder["url"] = hooks_url


def within_the_rules(case):
    if not in_phase(case, "stateful"):
        ask_for_something_there(case)
    headers = case.headers or {}
    for name in headers:
        if name.lower() == "idempotency-key":
            # One that another payload came with is refused.
            headers[name] = str(uuid.uuid4())
    query = case.query or {}
    if "cursor" in query:
        query["cursor"] = cursor_of(case)
    if "after" in query:
        query["after"] = STREAM_CURSOR
    body = case.body
    if isinstance(body, dict):
        if "receipts" in body:
            body["receipts"] = real(body["receipts"], case.path_parameters["queue"])
        if "receipt" in body:
            body["receipt"] = of_request(body["receipt"], case.path_parameters["queue"])
        if case.path == "/v1/transactions":
            rules_of_transactions(body)
        if body.get("dead_letter"):
            # At once, so not later.
            body.pop("delay_seconds", None)
        if case.path.endswith("/subscriptions/{subscription}"):
            # Whether it has a queue of its own stays as it is.
            if case.method == "PATCH" or case.path_parameters["subscription"] == "audit":
                body.pop("queue", None)
        for message in [body, *(body.get("messages") or [])]:
            if isinstance(message, dict):
                rules_of_messages(message)
                if in_phase(case, "stateful") and case.operation.definition.raw[
                    "operationId"
                ] in ("publish", "publish_topic"):
                    to_be_found_again(message)
        if case.path == "/v1/queues/{queue}" and case.method in ("PUT", "PATCH"):
            # That changes only while it is empty; and not both.
            body["ordered"] = case.path_parameters["queue"] == fixtures.ORDERED
            if body["ordered"]:
                body["fair"] = False
        if case.path.endswith("/unblock"):
            # Sizes are in bytes.
            body["keys"] = [shortened(key, 256) for key in body["keys"]]
        rules_of_settings(body)
        if case.path.endswith("/schema") and case.method == "PUT":
            # A schema has a document of its own; and this one takes what was taken.
            body["schema"] = {}
        if case.path == "/v1/schedules/{schedule}":
            rules_of_schedules(body)


def rules_of_schedules(body):
    """A pattern of cron has no grammar here, and time zones have a database."""
    if "cron" in body:
        body["cron"] = "30 2 * * *"
    if body.get("timezone") is not None:
        body["timezone"] = "Europe/Berlin"
    # One or the other, and what is routed by only with a topic.
    body.pop("topic", None)
    body["queue"] = "orders"
    message = body.get("message")
    if isinstance(message, dict):
        message.pop("routing_key", None)
        rules_of_messages(message)
        # A body or bytes: to the one that is there a patch must not add the other,
        # nor take it away with a null.
        message.pop("body_base64", None)
        message.pop("content_type", None)
        message["body"] = message.get("body") or 1


def ask_for_something_there(case):
    """Sequences of calls find ids by themselves; single ones hit none by chance."""
    names = case.path_parameters or {}
    for folder, field in (("messages", "messages"), ("dead-letters", "dead_letters")):
        if case.path == f"/v1/queues/{{queue}}/{folder}/{{id}}":
            path = f"/v1/queues/{names['queue']}/{folder}?limit=1"
            found = client.call("GET", path, gone=True)
            if found and found[field]:
                names["id"] = found[field][0]["id"]
    if case.path.startswith("/v1/claims/") and case.operation.definition.raw[
        "operationId"
    ] in ("complete_claim", "give_up_claim"):
        names["key"] = f"fuzz:{uuid.uuid4()}"
        token = client.call("POST", f"/v1/claims/{names['key']}", {})["token"]
        # One of both has it.
        if isinstance(case.body, dict):
            case.body["token"] = token
        else:
            case.query["token"] = token
    if case.path == "/v1/replies/{correlation_id}":
        names["correlation_id"] = client.ask()
    if "/schema" in case.path:
        kind = "queue" if "queue" in names else "topic"
        if names[kind] in (*fixtures.QUEUES, fixtures.TOPIC):
            # With a schema the others could not publish bytes.
            names[kind] = fixtures.CHECKED
            version = client.make_checked(kind, has_schema=case.method != "PUT")
            if "version" in names:
                # As it is written.
                names["version"] = str(version)
    if "/webhook" in case.path and names["queue"] in fixtures.QUEUES:
        names["queue"] = fixtures.PUSHED
        client.make_webhook(hooks_url)


def cursor_of(case):
    if case.path.endswith("/schema/versions"):
        return VERSION_CURSOR
    if not case.path.endswith(("/messages", "/dead-letters", "/attempts")):
        return NAME_CURSOR
    if case.path.endswith("/messages") and (case.query or {}).get("state", "ready") == "ready":
        return READY_CURSOR
    return TIME_CURSOR


def is_receipt(text):
    return len(str(text)) == RECEIPT_LENGTH


def real(receipts, queue):
    """Receipts are opaque, too; these are of messages that are leased now."""
    if not isinstance(receipts, list) or any(is_receipt(r) for r in receipts):
        return receipts
    path = f"/v1/queues/{queue}"
    if client.call("GET", path, gone=True) is None:
        return receipts
    client.call("PUT", path, fixtures.settings(queue))
    client.call("POST", f"{path}/messages", {"body": 1, "priority": 9})
    leased = client.call(
        "POST", f"{path}/receive", {"max_messages": 3, "lease_seconds": 600}
    )
    return [message["receipt"] for message in leased["messages"]] or receipts


def of_request(receipt, queue):
    """One of a request that is leased now."""
    path = f"/v1/queues/{queue}"
    if is_receipt(receipt) or client.call("GET", path, gone=True) is None:
        return receipt
    # As it was made: without its order the ordered one would be another, or a 409.
    client.call("PUT", path, fixtures.settings(queue))
    client.call("POST", f"{path}/requests", {"body": 1, "priority": 9, "timeout_seconds": 600})
    lease = {"max_messages": 100, "lease_seconds": 600}
    leased = client.call("POST", f"{path}/receive", lease)
    found = [m["receipt"] for m in leased["messages"] if "reply_deadline" in m]
    return found[-1] if found else receipt


def rules_of_transactions(body):
    """1 to 1000 parts in all, with receipts and tokens that are good."""
    path = f"/v1/queues/{fixtures.QUEUES[1]}"
    for kind in ("acks", "nacks"):
        for part in (body.get(kind) or [])[:1]:
            client.call("PUT", path, {})
            [receipt] = real([], fixtures.QUEUES[1])[:1] or [part["receipt"]]
            part.update(queue=fixtures.QUEUES[1], receipt=receipt)
            if part.get("dead_letter"):
                part.pop("delay_seconds", None)
            body[kind] = [part]
    for part in (body.get("claims") or [])[:1]:
        key = f"fuzz:{uuid.uuid4()}"
        part.update(key=key, token=client.call("POST", f"/v1/claims/{key}", {})["token"])
        body["claims"] = [part]
    if body.get("publishes"):
        body["publishes"] = body["publishes"][:10]
        for part in body["publishes"]:
            rules_of_messages(part["message"])
    if not any(body.get(kind) for kind in ("acks", "nacks", "publishes", "claims")):
        body["publishes"] = [{"queue": fixtures.QUEUES[1], "message": {"body": 1}}]


def rules_of_messages(message):
    # None may match; whether one does is not the document's to say.
    if message.get("mandatory"):
        message["mandatory"] = False
    # Sizes are in bytes.
    for name in ("key", "dedup_id", "correlation_id", "reply_to", "routing_key"):
        if isinstance(message.get(name), str):
            message[name] = shortened(message[name], 255)
    headers = message.get("headers")
    if isinstance(headers, dict):
        for name, value in headers.items():
            if isinstance(value, str):
                headers[name] = shortened(value, 4096)
    # One or the other.
    if message.get("delay_seconds") is not None:
        message.pop("deliver_at", None)
    # At most a year ahead.
    if message.get("deliver_at") is not None:
        soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
        message["deliver_at"] = soon.isoformat()


def to_be_found_again(message):
    """It is asked for later, so it must not be a duplicate of one that is gone,
    expire, or be taken by a webhook."""
    if "body" in message or "body_base64" in message:
        for name in ("dedup_id", "ttl_seconds", "deliver_at"):
            message.pop(name, None)
        message["delay_seconds"] = 3600


def rules_of_settings(body):
    backoff = body.get("backoff")
    if isinstance(backoff, dict):
        in_order(backoff, "initial_seconds", "max_seconds", 0)
    if isinstance(body.get("rate_limit"), dict):
        # The batches of other requests are no larger.
        body["rate_limit"]["burst"] = max(body["rate_limit"].get("burst") or 0, 1000)
    for webhook in (body, body.get("webhook")):
        if not isinstance(webhook, dict):
            continue
        breaker = webhook.get("circuit_breaker")
        if isinstance(breaker, dict):
            in_order(breaker, "min_calls", "window", 1)
        if "url" in webhook and isinstance(webhook.get("headers"), dict):
            # Names are the same in any case of letters.
            webhook["headers"] = {k.lower(): v for k, v in webhook["headers"].items()}
    # A queue that is there, or one of its own that may have a webhook.
    if isinstance(body.get("webhook"), dict):
        body.pop("queue", None)
    filter = body.get("filter")
    if isinstance(filter, dict):
        if not filter.get("headers"):
            filter.pop("match", None)
        if isinstance(filter.get("routing_key"), str):
            filter["routing_key"] = shortened(filter["routing_key"], 255)
        rules_of_policies(filter.get("body"))


def rules_of_policies(part):
    """Ranges have numbers in them."""
    if isinstance(part, list):
        for one in part:
            rules_of_policies(one)
    elif isinstance(part, dict):
        numeric = part.get("numeric")
        if isinstance(numeric, list) and len(numeric) == 4:
            low = min(numeric[1], numeric[3])
            numeric[1] = low - max(1, abs(low) / 2)
        for one in part.values():
            rules_of_policies(one)


def in_order(settings, low, high, least):
    """What is left out has a default that the other one may not fit."""
    a, b = settings.get(low), settings.get(high)
    if a is not None or b is not None:
        numbers = sorted(n for n in (a, b, least) if n is not None)
        settings[low], settings[high] = numbers[0] or least, max(numbers[-1], least)


def shortened(text, size):
    return text.encode("utf-8", "surrogatepass")[:size].decode("utf-8", "ignore") or "x"


@schemathesis.hook
def after_call(ctx, case, response):
    taken.note(case, response)
    if "/schema" in case.path and response.status_code < 300:
        # Publishes of bytes would be refused from now on.
        if not in_phase(case, "stateful"):
            path = case.formatted_path.partition("/schema")[0]
            client.call("DELETE", f"{path}/schema", gone=True)
    # Sequences of calls count on what they delete being gone.
    if case.method != "DELETE" or response.status_code != 204 or in_phase(case, "stateful"):
        return
    names = case.path_parameters
    if names.get("schedule") == fixtures.SCHEDULE:
        client.make_schedule()
    elif case.path == "/v1/queues/{queue}" and names["queue"] in fixtures.FILLED:
        client.make_queue(names["queue"])
    elif names.get("topic") == fixtures.TOPIC:
        client.call("PUT", f"/v1/topics/{fixtures.TOPIC}", {"retention_seconds": 86400})
        client.call("DELETE", f"/v1/queues/{fixtures.QUEUES[2]}?force=true", gone=True)
        client.make_subscription()
        client.publish_topic()
