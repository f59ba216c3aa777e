"""SQL statements: started in executors over the snapshots that they read, listed, stopped, their results.

`request` is what a caller asks, `mentions` finds the datasets in a text, `tables` leases their shards,
`statements` starts the execution, which is a `queries.QueryExecution` or one of `lake.writes`;
`scripts` and `transactions` run several of them.
"""
