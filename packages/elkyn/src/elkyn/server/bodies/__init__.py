"""Bodies of requests and responses: their memory limit, JSON, and large bodies in pieces.

Layering: `codec` (JSON) < `scanner` < `large_bodies`, `large_responses`; `memory` counts the bytes.
"""
