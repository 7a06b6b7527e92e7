"""A log table as requests, written as plainly as it can be said: the reference of `data/table`."""

import math


def slow_requests(frame, *, split_of, size, history):
    """List the requests by id: what each field of a prepared request must hold, in raw ids.

    Args:
      frame: of `table_cases.log`.
      split_of: request id -> name of its split.
      size: most candidates.
      history: events kept.
    """
    rows = frame.to_dicts()
    requests = {}
    for row in rows:
        requests.setdefault(row["request_id"], []).append(row)
    known = {row["item_id"] for row in rows if split_of[row["request_id"]] == "train"}
    users = {row["user_id"] for row in rows if split_of[row["request_id"]] == "train"}
    found = {}
    for number, own in requests.items():
        own = sorted(own, key=lambda row: -row["score"])[:size]
        low, high = min(r["score"] for r in own), max(r["score"] for r in own)
        first = own[0]
        past = [
            (row["timestamp"], row["item_id"])
            for row in rows
            if row["user_id"] == first["user_id"]
            and row["timestamp"] < first["timestamp"]
            and (row["label"] or 0) > 0.5
        ]
        shown = sorted((r for r in own if r["position"] is not None), key=lambda r: r["position"])
        found[number] = {
            "user": first["user_id"] if first["user_id"] in users else None,
            "history": [i if i in known else None for _, i in sorted(past)][-history:],
            "slate": [r["item_id"] for r in shown],
            "candidates": {
                r["item_id"]: {
                    "known": r["item_id"] in known,
                    "score": (r["score"] - low) / (high - low) if high > low else None,
                    "label": r["label"] or 0.0,
                    "weight": 0.0 if r["label"] is None else 1.0,
                    "exposed": r["position"] is not None,
                }
                for r in own
            },
        }
        assert all(math.isfinite(r["score"]) for r in own)
    return found
