"""Zero-copy typed-record ring in shared memory: the transport between a node's processes.

Layers, each importing only those before it: `_native` (the C core), `errors`, `schema`, `layout`,
`owners`, `segment`, `role`, `rows`, `cursor`, `batches`, `writer` and `view`, `ring`, `inspection`,
`cli`. Importing this package loads nothing third-party; Arrow comes in with the first batch.
"""

from sennit_core.ownership import refuse_strangers

refuse_strangers(__file__, "sennit-strand")

from strand.cursor import RecordCursor  # noqa: E402 - after the check above
from strand.errors import (  # noqa: E402
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
from strand.inspection import cleanup  # noqa: E402
from strand.ring import Ring, attach_ring, open_ring  # noqa: E402
from strand.schema import BLOCKS, StrandField, StrandSchema, build_schema  # noqa: E402
from strand.view import StrandView  # noqa: E402
from strand.writer import StrandWriter  # noqa: E402

__all__ = [
    "BLOCKS",
    "ConsumerDied",
    "HeaderError",
    "LeaseHeld",
    "PayloadTooLarge",
    "ProducerDied",
    "RecordCursor",
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
    "cleanup",
    "open_ring",
]
