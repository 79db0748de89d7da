"""Every cached copy of a Glance image, managed as a replica.

The folders ``replicas/``, ``middleware/`` and ``tools/`` of the source tree are one import package,
``glance_replicas`` (``setup.cfg`` maps them). See ARCHITECTURE.md.
"""

if not __name__.startswith("glance_replicas"):
    raise ImportError(f"import glance_replicas, not {__name__}: the folder has another name (pip install -e .)")

__version__ = "0.1.0"
