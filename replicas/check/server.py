"""The WSGI server that runs this host: options of uWSGI that end a process while it fills or sends."""

from collections.abc import Mapping

from .facts import Facts
from .finding import WARNING, Finding, Findings

_RETIRES = "retires workers without regard to the bodies and fills of their other threads"
_LEAVE_OUT = "leave it out; where memory grows, restart the hosts one after the other at a quiet hour"
_BOUND = "leave it out: clients that are gone or stand still are noticed without it (socket-timeout, max_streams)"
ENDINGS: Mapping[str, tuple[str, str]] = {  # what it does, and the remedy
    "harakiri": ("kills a worker when one request of it, such as a long download, takes longer", _BOUND),
    "max-worker-lifetime": (_RETIRES, _LEAVE_OUT),
    "max-requests": (_RETIRES, _LEAVE_OUT),
    "reload-on-rss": (_RETIRES, _LEAVE_OUT),
    "evil-reload-on-rss": ("kills a worker by its size, whatever it does", _LEAVE_OUT),
    "cheaper": (_RETIRES, "leave it out: run as many processes as the busy hours need; threads that wait cost little"),
    "idle": (_RETIRES, "leave it out"),
}
CONSEQUENCE = "what is being filled is taken over, a body breaks off visibly"


def _endings(facts: Facts) -> Findings:
    for name, value in facts.server_endings:
        if name in ENDINGS:
            does, remedy = ENDINGS[name]
            what = f"uWSGI runs this host with {name} = {value}"
            yield Finding(WARNING, what, f"it {does}: {CONSEQUENCE}, and clients have to begin again", remedy)


RULES = (_endings,)
