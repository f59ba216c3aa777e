"""elytra.backends.ray: run tasks on the workers of a Ray cluster (docs.ray.io), with the extra `ray`.

    node's process            driver process                 Ray worker processes (actors)
    backend.RayBackend ─────▶ driver ─▶ cluster, attempt ─▶ worker ─▶ ExecutorPool ─▶ executor
              JSON lines               calls of actors, bytes only        the same entry points

Layering: options, wire, files <- worker <- transfer, cluster <- attempt <- driver; wire <- backend.

Ray is imported by the driver and the workers alone: a Ray client ends its process when the cluster is
gone for a minute, and reads what the cluster sends with pickle, so it is not in the node's process.
"""

from elytra.backends.ray.backend import RayBackend
from elytra.backends.ray.options import RayOptions

__all__ = ["RayBackend", "RayOptions"]
