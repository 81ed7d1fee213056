"""Fuzzes the contract: schemathesis over the served OpenAPI document.

Starts a gateway with a private Postgres in a temporary folder, on a free port;
makes what there is to find (see fixtures.py); lets schemathesis loose on it; and
looks into the gateway's log. `make fuzz` runs it, from the Python that
scripts/fuzz-contract has made.
"""

import argparse
import http.server
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import fixtures
import taken

HERE = pathlib.Path(__file__).resolve().parent

# Seconds for schemathesis itself, so that all is done within three minutes.
BUDGET = 140


class Hooks(http.server.BaseHTTPRequestHandler):
    """What webhooks are pushed to: takes everything."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


class Gateway:
    """A running gateway; its log is kept."""

    def __init__(self, program, folder, more):
        self.log = []
        self.key = None
        self.process = subprocess.Popen(
            [program, "serve", "--listen", "127.0.0.1:0", "--data-dir", folder]
            # Bad keys are part of it.
            + ["--failed-logins-per-minute", "1000000000"]
            + ["--webhook-allow", "127.0.0.0/8", *more],
            env={k: v for k, v in os.environ.items() if not k.startswith("POSTRIDER_")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        found = queue.Queue()
        self.readers = [
            threading.Thread(target=self._read_log, args=(found,), daemon=True),
            threading.Thread(target=self._read_key, daemon=True),
        ]
        for reader in self.readers:
            reader.start()
        self.url = found.get(timeout=60)
        if self.url is None:
            raise SystemExit("the gateway did not start:\n" + "".join(self.log))
        # The key is printed after the address, and not at all without --auth.
        if any("auth: required" in line for line in self._greeting()):
            ends = time.monotonic() + 10
            while self.key is None and time.monotonic() < ends:
                time.sleep(0.01)

    def _greeting(self):
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            lines = list(self.log)
            # The last of those that are always there.
            if any("auth: " in line or "API keys" in line for line in lines):
                return lines
            time.sleep(0.01)
        return list(self.log)

    def _read_log(self, found):
        for line in self.process.stderr:
            self.log.append(line)
            if match := re.search(r"listening on (http://\S+)", line):
                found.put(match[1])
        found.put(None)

    def _read_key(self):
        for line in self.process.stdout:
            if match := re.search(r"\bpr_\w+\b", line):
                self.key = match[0]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=60)
        for reader in self.readers:
            reader.join()
        return status


def run_schemathesis(gateway, arguments, hooks_url, taken_file):
    """Its exit status."""
    command = [
        str(pathlib.Path(sys.executable).parent / "st"),
        "--config-file",
        str(HERE / "schemathesis.toml"),
        "run",
        f"{gateway.url}/openapi.json",
        *(["--max-time", str(BUDGET)] if not arguments.endless else []),
        "--seed",
        str(arguments.seed),
        *arguments.rest,
    ]
    environment = dict(
        os.environ,
        PYTHONPATH=str(HERE),
        PYTHONDONTWRITEBYTECODE="1",
        FUZZ_URL=gateway.url,
        FUZZ_HOOKS_URL=hooks_url,
        FUZZ_TAKEN=taken_file,
        NO_COLOR="1",
    )
    if gateway.key:
        command += ["--header", f"Authorization: Bearer {gateway.key}"]
        environment["FUZZ_KEY"] = gateway.key
    print(f"fuzzing {gateway.url}, seed {arguments.seed}", flush=True)
    return subprocess.run(command, env=environment).returncode


def main():
    parser = argparse.ArgumentParser(
        description="Fuzzes the contract. What follows -- is for `st run`."
    )
    parser.add_argument("program", help="the gateway's program")
    parser.add_argument(
        "--seed", type=int, default=1, help="another seed, other requests (1)"
    )
    parser.add_argument(
        "--auth",
        choices=["required", "off"],
        help="with an API key, or on a gateway that asks for none",
    )
    parser.add_argument("--endless", action="store_true", help="without a time limit")
    own, rest = sys.argv[1:], []
    if "--" in own:
        own, rest = own[: own.index("--")], own[own.index("--") + 1 :]
    arguments = parser.parse_args(own)
    arguments.rest = rest

    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hooks)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    hooks_url = f"http://127.0.0.1:{receiver.server_port}/hook"

    folder = tempfile.mkdtemp(prefix="postrider-fuzz-")
    # Run by root, the private Postgres is another user.
    os.chmod(folder, 0o711)
    more = ["--auth", arguments.auth] if arguments.auth else []
    gateway = Gateway(arguments.program, f"{folder}/data", more)
    taken_file = f"{folder}/taken"
    open(taken_file, "w").close()
    try:
        fixtures.Client(gateway.url, gateway.key).make_all(hooks_url)
        operations = taken.operations(gateway.url)
        status = run_schemathesis(gateway, arguments, hooks_url, taken_file)
        # With options it may be only a part.
        missed = [] if arguments.rest else taken.wrong(operations, taken_file)
    finally:
        ended = gateway.stop()
        shutil.rmtree(folder, ignore_errors=True)

    wrong = [line for line in gateway.log if "ERROR" in line or "panicked" in line]
    if wrong:
        print("the gateway's log has errors:", *wrong[:50], sep="\n  ")
    if ended != 0:
        print(f"the gateway ended with {ended}")
    for line in missed:
        print(line)
    if status or wrong or ended or missed:
        print(f"FAILED; the same requests again: make fuzz ARGS='--seed {arguments.seed}'")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
