"""Zero-copy typed-record ring in shared memory: the transport between a node's processes.

Layers, each importing only those before it: `_native` (the C core), `errors`, `schema`, `layout`,
`owners`, `segment`, `role`, `writer` and `view`, `ring`, `cli`. Importing this package loads nothing
third-party; Arrow comes in with the first batch.
"""

from strand.errors import (
    ConsumerDied,
    HeaderError,
    LeaseHeld,
    PayloadTooLarge,
    ProducerDied,
    RingExhausted,
    RoleInherited,
    RoleTaken,
    StrandAbortError,
)
from strand.ring import Ring, attach_ring, open_ring
from strand.schema import BLOCKS, StrandField, StrandSchema, build_schema
from strand.view import StrandView
from strand.writer import StrandWriter

__all__ = [
    "BLOCKS",
    "ConsumerDied",
    "HeaderError",
    "LeaseHeld",
    "PayloadTooLarge",
    "ProducerDied",
    "Ring",
    "RingExhausted",
    "RoleInherited",
    "RoleTaken",
    "StrandAbortError",
    "StrandField",
    "StrandSchema",
    "StrandView",
    "StrandWriter",
    "attach_ring",
    "build_schema",
    "open_ring",
]
