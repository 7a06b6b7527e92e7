"""One request in the form of each way out of a model: raw, as JSON, in another process."""

import asyncio
import json
import subprocess
import sys

ITEM = ["item_id", "i_brand", "i_tags", "i_price"]
OWN = ["user_id", "u_city", "c_weekday", "history"]
ALONE = """
import json, sys
class Hidden:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("dnr_jax", "flax", "optax", "polars", "pyarrow"):
            raise ImportError(name)
sys.meta_path.insert(0, Hidden())
sys.path.insert(0, sys.argv[1])
import load
model, requests = load.Model(), json.loads(sys.stdin.read())
print(json.dumps([[s.tolist() for s in model.scores(requests)], model.rank(requests)]))
"""


def groups(frame):
    """Cut a table into its requests."""
    return [own for _, own in frame.group_by("request_id", maintain_order=True)]


def raw(own):
    """Write the candidates of one request as its user would."""
    first = own.row(0, named=True)
    items = own.select(name for name in ITEM if name in own.columns).to_dicts()
    said = {name: first[name] for name in OWN if name in own.columns}
    return said | {"scores": own["score"].to_list(), "items": items}


def message(own):
    """Write the same request as the service takes it."""
    one = raw(own)
    items = [
        {"id": item.pop("item_id"), "score": score, "fields": item}
        for item, score in zip(one["items"], one["scores"], strict=True)
    ]
    fields = {name: one[name] for name in ("u_city", "c_weekday") if name in one}
    words = {"id": own["request_id"][0], "user": one["user_id"], "history": one["history"]}
    return words | {"timestamp": 1_700_000_000, "fields": fields, "items": items}


def elsewhere(folder, requests):
    """Score and rank by an exported model in a process that cannot import the package."""
    command = [sys.executable, "-c", ALONE, str(folder)]
    done = subprocess.run(command, input=json.dumps(requests), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def ask(app, path, body=None, *, hangs_up=False):
    """Call an ASGI application as a server would: status, headers and the answer's bytes.

    A client that hangs up does so before its body has ended.
    """
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET" if body is None else "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json")],
        "client": ("test", 1),
        "server": ("test", 80),
        "scheme": "http",
    }
    parts = [{"type": "http.request", "body": content, "more_body": hangs_up}]
    sent = []

    async def receive():
        if parts:
            return parts.pop()
        if hangs_up:
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    headers = dict(sent[0]["headers"])
    return sent[0]["status"], headers, b"".join(part.get("body", b"") for part in sent[1:])
