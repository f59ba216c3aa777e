"""The tree as values, with no storage: paths, JSON values, order, queries, and the events of a change.

Layering: `paths` < `values` < `ordering` < `reader` (the protocol of a consistent state) < `query` <
`events` < `live_query` (a query's result, kept up to date) < `watch` (subscriptions).
"""
