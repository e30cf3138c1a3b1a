"""Query parameters of a request that says how it is to go; a bad one is refused with the reason and what to type."""

from __future__ import annotations

from dataclasses import dataclass

from werkzeug.datastructures import MultiDict

from .bounds import Bounds
from .settings import RATE


class ParameterError(ValueError):
    """`problems` holds a dict (parameter, value, reason, use) for each bad parameter."""

    def __init__(self, problems: list[dict[str, str]]) -> None:
        super().__init__(f"{len(problems)} bad parameter{'s' if len(problems) > 1 else ''}")
        self.problems = problems


@dataclass(frozen=True)
class Wanted:
    """Wanted behaviour: a latency in milliseconds (None: random) and the share of failures."""

    delay_ms: float | None = None
    error_rate: float = 0

    @classmethod
    def of(cls, path: str, query: MultiDict[str, str], limit_ms: float) -> Wanted:
        """Parameters from the query string of a path; ParameterError names everything that is wrong at once."""
        known = {
            "delay_ms": (Bounds(0, limit_ms), "500"),
            "error_rate": (RATE, "0.3"),
        }
        values = {}
        problems = []
        for name, given in query.lists():
            text = ", ".join(given)
            if name not in known:
                reason, use = f"is not a parameter of {path}", f"one of {', '.join(known)}"
            elif len(given) > 1:
                reason, use = "is given more than once", f"{name} once"
            else:
                bounds, example = known[name]
                use = f"{bounds}, such as {name}={example}"
                try:
                    values[name] = bounds.parse(text)
                    continue
                except ValueError as error:
                    reason = str(error)
            problems.append({"parameter": name, "value": text, "reason": reason, "use": use})
        if problems:
            raise ParameterError(problems)
        return cls(**values)
