"""The files of a store; the only room that imports LMDB.

Layering: `environment` (LMDB) < `rows`, `index_rows`, `log_rows`, `receipts` (encodings) < `row_tree`,
`ephemeral`, `indexes` < `transactions` < `disk` (a store's folder) < `writer` (group commit).
Apart from these, `oplog` reads the log, `backup` copies files, `verify` checks them, `terms` are the
terms of leaders that a store keeps, and `account_rows` holds the rows of the account store, which no
tree path can reach.
"""
