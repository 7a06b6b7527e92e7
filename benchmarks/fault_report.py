"""The outcomes of a fault campaign, as Markdown."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Any, NamedTuple

KINDS = {"kill": "kills", "fault": "damaged files", "limit": "limits on file sizes"}


class Outcome(NamedTuple):
    """The outcome of one disturbance.

    Attributes:
      kind: kill, fault or limit.
      what: the stage and signal, the file and damage, or the limit.
      case: which run.
      verdict: `same` (results are those of the undisturbed run), `refused` (an error in plain
        words), `told` (results differ and the damaged file was named), or what must not happen:
        `differs`, `not resumed`, `traceback`, `hangs`.
      torn: files that were incomplete under their name.
      effective: False for a kill that came after the end.
      text: the end of the output of a bad one.
    """

    kind: str
    what: tuple[str, str]
    case: str
    verdict: str
    torn: list[str]
    effective: bool = True
    text: str = ""

    @property
    def bad(self) -> bool:
        """Whether this must not happen."""
        return self.verdict not in ("same", "refused", "told") or bool(self.torn)


def markdown(found: list[Outcome], about: dict[str, Any]) -> str:
    """Render the counts, the tables by kind, and every bad outcome with its output."""
    commit = about["commit"] or {"name": "no clone", "dirty": False}
    changed = " with uncommitted changes" if commit["dirty"] else ""
    parts = [
        "# Faults",
        f"`{about['command']}`, commit {commit['name'][:12]}{changed}; {about['cpu']}, "
        f"{about['cpu_count']} cores, jax {about['packages']['jax']}, Python {about['python']}.",
        _counts(found),
        "A run ends with the same bytes (`same`), refuses in plain words (`refused`), or says what "
        "is lost and goes on (`told`). The other words must not occur.",
    ]
    for kind, title in KINDS.items():
        own = [outcome for outcome in found if outcome.kind == kind]
        if own:
            parts += [f"## {title.capitalize()}", _by_what(own)]
    parts += [_story(outcome) for outcome in found if outcome.bad]
    return "\n\n".join(parts) + "\n"


def _counts(found: list[Outcome]) -> str:
    rows = [(f"{title} tried", sum(o.kind == kind for o in found)) for kind, title in KINDS.items()]
    effective = sum(o.kind == "kill" and o.effective for o in found)
    rows += [
        ("kills that came in time", effective),
        ("results that differ without a word", sum(o.verdict == "differs" for o in found)),
        ("runs that could not go on", sum(o.verdict == "not resumed" for o in found)),
        ("files torn under their name", sum(len(o.torn) for o in found)),
        ("tracebacks", sum(o.verdict == "traceback" for o in found)),
        ("runs that hang", sum(o.verdict == "hangs" for o in found)),
    ]
    return _table(("what", "number"), rows)


def _by_what(found: list[Outcome]) -> str:
    """Count verdicts: one line per stage or file, one column per signal or damage."""
    lines = list(dict.fromkeys(sorted(o.what[0] for o in found)))
    columns = list(dict.fromkeys(sorted(o.what[1] for o in found)))
    counts: dict[tuple[str, str], collections.Counter[str]] = {}
    for outcome in found:
        counts.setdefault(outcome.what, collections.Counter())[outcome.verdict] += 1
    rows = [
        (line, *(_cell(counts.get((line, column), collections.Counter())) for column in columns))
        for line in lines
    ]
    return _table(("", *columns), rows)


def _cell(counts: collections.Counter[str]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))


def _story(outcome: Outcome) -> str:
    torn = f", torn: {', '.join(outcome.torn)}" if outcome.torn else ""
    title = f"### {outcome.verdict}: {outcome.kind} {' '.join(outcome.what)} ({outcome.case}){torn}"
    return f"{title}\n\n```\n{outcome.text.strip()}\n```"


def _table(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
