"""Glance's own cache programs, which work on the directory past glance-api, and what they do to our files."""

from .facts import Facts
from .finding import ERROR, INFO, WARNING, Finding, Findings

_API = "openstack cached image queue, delete and clear, and POST /v2/cache/clean and /prune, go through this project"
_PRUNER = {
    "centralized_db": "it knows nothing of our files and never ends, at full load, once they are more than "
    "image_cache_max_size",
    "sqlite": "it removes files that Glance's own cache left and that we adopted, while their rows stay",
    "xattr": "it removes our files, the least recently used first, while their rows stay: peers and clients get 404",
}
_WHYS = {
    "glance-cache-cleaner": "it removes what is set aside as evidence of wrong bytes, and what was left half-written",
    "glance-cache-prefetcher": "it reads queued images from the store once more and writes over what is cached "
    "(that of Glance 33.0.0 fails at its start)",
}


def _programs(facts: Facts) -> Findings:
    for job in facts.cache_jobs:
        pruner = job.program == "glance-cache-pruner"
        yield Finding(
            ERROR if pruner else WARNING,
            f"{job.program} is run by {job.where}",
            _PRUNER.get(facts.cache_driver, _PRUNER["xattr"]) if pruner else _WHYS[job.program],
            f"remove the job: the janitor of glance-api does this; {_API}",
        )
    for place in facts.unread_jobs:
        yield Finding(
            INFO,
            f"{place} could not be read",
            "it may run Glance's cache programs, which remove files under their rows",
            "look there as root: grep -r glance-cache- " + place,
        )


def _limit(facts: Facts) -> Findings:
    if facts.cache_driver == "xattr" and facts.glance_max_bytes < facts.max_bytes:
        yield Finding(
            INFO,
            f"image_cache_max_size = {facts.glance_max_bytes} is less than max_bytes = {facts.max_bytes}",
            "glance-cache-pruner, should anybody run it, removes all files above the smaller limit under their rows",
            "set image_cache_max_size to the same number, and take [replicas] max_bytes out",
        )


RULES = (_programs, _limit)
