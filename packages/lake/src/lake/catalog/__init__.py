"""The catalog: datasets, their snapshots and manifests, as rows in Elkyn's `sys` tree and objects.

`snapshots` has the records, `manifests` reads and writes them, `tables` and `index` the rows;
`catalog` puts them together, and is what others use. `staged` is the catalog that one transaction sees.
"""
