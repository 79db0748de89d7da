"""The directory of a cache and its disk."""

from .facts import Facts
from .finding import ERROR, WARNING, Finding, Findings


def _cache_dir(facts: Facts) -> Findings:
    if facts.cache_dir_problem:
        why, remedy = "nothing is cached on this host", "create it, or mount it, owned by the user that runs Glance"
        yield Finding(ERROR, f"image_cache_dir {facts.cache_dir or ''}: {facts.cache_dir_problem}", why, remedy)
    if facts.closed_files:
        number, image_id = len(facts.closed_files), facts.closed_files[0]
        yield Finding(
            ERROR,
            f"image_cache_dir {facts.cache_dir or ''}: {number} files, {image_id} among them, cannot be read by "
            f"{facts.cache_user}",
            "a program that was run as another user made them, or took them over; Glance serves and registers none",
            f"as root: chown -R {facts.cache_user} {facts.cache_dir or ''}",
        )
    if facts.withheld_files:
        number, (image_id, why) = len(facts.withheld_files), facts.withheld_files[0]
        yield Finding(
            ERROR,
            f"image_cache_dir {facts.cache_dir or ''}: {number} files, {image_id} among them, could not be read: {why}",
            "they stay, and are neither served nor registered until they can be read; one may be a last intact copy",
            "look at the disk (dmesg, smartctl -a), or at SELinux and AppArmor; they are tried again every ten minutes",
        )
    if facts.disk_bytes is not None and facts.max_bytes + facts.min_free_bytes > facts.disk_bytes:
        yield Finding(
            WARNING,
            f"max_bytes + min_free_bytes is more than the {facts.disk_bytes} bytes of the disk",
            "min_free_bytes, not max_bytes, will be what limits the cache",
            "set [replicas] max_bytes below the size of the file system",
        )
    if facts.free_bytes is not None and facts.free_bytes < facts.min_free_bytes:
        yield Finding(
            WARNING,
            f"{facts.free_bytes} bytes are free where min_free_bytes keeps {facts.min_free_bytes}",
            "nothing is cached until there is room; cached files are evicted first",
            "free some space beside the cache, or give the cache a file system of its own",
        )


RULES = (_cache_dir,)
