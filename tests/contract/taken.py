"""Which operations were really done: one that is refused every time is not tested.

The hooks note each answer of 2xx, in a file since they are in another process; when
all is over `fuzz.py` asks for the operations that have none.
"""

import collections
import json
import os
import urllib.request

# Those that may have none, and why.
EXCUSED = {}


def note(case, response):
    """Called for every answer."""
    if 200 <= response.status_code < 300:
        with open(os.environ["FUZZ_TAKEN"], "a") as file:
            print(case.operation.definition.raw["operationId"], file=file)


def operations(url):
    """All that the document has."""
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=30) as answer:
        paths = json.load(answer)["paths"].values()
    return {operation["operationId"] for path in paths for operation in path.values()}


def wrong(all_operations, file):
    """What to say of those that were never done; nothing if there are none."""
    with open(file) as lines:
        counts = collections.Counter(line.strip() for line in lines)
    few = sorted((counts[name], name) for name in all_operations)[:12]
    print("2xx, the fewest:", ", ".join(f"{name} {count}" for count, name in few))
    said = [f"{name} has never been done" for name in sorted(all_operations - counts.keys())
            if name not in EXCUSED]
    said += [f"{name} is excused, but there is no such operation"
             for name in sorted(EXCUSED.keys() - all_operations)]
    return said
