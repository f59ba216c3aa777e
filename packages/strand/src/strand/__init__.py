"""Zero-copy typed-record ring in shared memory: the transport between processes of one machine.

Layers, each importing only those before it: `_native` (the C core), `errors`, `fields`, `conversions`,
`schema`, `layout`, `header`, `owners`, `segment`, `closing`, `failures`, `rows`, `mapping`, `plain`,
`cursor`, `stats`, `role`, `watching`, `batches`, `producer`, `consumer`, `sources`, `arrow`, `columns`,
`filters`, `reading`, `claim`, `writer`, `view`, `ring`, `selection`, `fanin_joins`, `fanin_view`,
`fanin`, `pipes`, `aio`, `bridge`, `inspection`, `follow`, `bench`, `cli`. `filters`, `aio` and `bridge`
are not re-exported here: import them by name. `claim`, `columns`, `filters` and `reading` contain
methods of `writer` and `view`, and know those by their bases in `producer` and `consumer`.
Importing this package imports no third-party package; the first batch imports Arrow and numpy.
"""

from sennit_core.ownership import check_distribution

check_distribution(__file__, "sennit-strand")

from strand.cursor import RecordCursor  # noqa: E402 - after the check above
from strand.errors import (  # noqa: E402
    ConsumerDied,
    CorruptRecord,
    LeaseHeld,
    PayloadTooLarge,
    ProducerDied,
    RemoteFailure,
    RingExhausted,
    RoleInherited,
    RoleTaken,
    StrandAbortError,
    StrandHeaderError,
    StreamReset,
)
from strand.fanin import FanIn, attach_fan_in, fan_in  # noqa: E402
from strand.fanin_view import FanInView  # noqa: E402
from strand.fields import StrandField  # noqa: E402
from strand.header import StrandMap, compute_map, init_header, read_header  # noqa: E402
from strand.inspection import cleanup  # noqa: E402
from strand.pipes import Pipe, pipe  # noqa: E402
from strand.ring import Ring, attach_ring, open_ring  # noqa: E402
from strand.schema import BLOCKS, StrandSchema, build_schema, schema_fingerprint  # noqa: E402
from strand.selection import select  # noqa: E402
from strand.view import StrandView  # noqa: E402
from strand.writer import StrandWriter  # noqa: E402

__all__ = [
    "BLOCKS",
    "ConsumerDied",
    "CorruptRecord",
    "FanIn",
    "FanInView",
    "LeaseHeld",
    "PayloadTooLarge",
    "Pipe",
    "ProducerDied",
    "RecordCursor",
    "RemoteFailure",
    "Ring",
    "RingExhausted",
    "RoleInherited",
    "RoleTaken",
    "StrandAbortError",
    "StrandField",
    "StrandHeaderError",
    "StrandMap",
    "StrandSchema",
    "StrandView",
    "StrandWriter",
    "StreamReset",
    "attach_fan_in",
    "attach_ring",
    "build_schema",
    "cleanup",
    "compute_map",
    "fan_in",
    "init_header",
    "open_ring",
    "pipe",
    "read_header",
    "schema_fingerprint",
    "select",
]
