"""Bundles: datasets in one encrypted file, by which a site is seeded from a disk.

`format` knows the bytes, `exporting` writes a bundle, `importing` stores what is in one, as copies of
shared datasets or as new datasets. None imports one that comes after it; the network's part is
`lake.peers.sharing.seeding`.
"""

from lake.bundles.exporting import ExportRequest, export_bundle
from lake.bundles.format import Bundle, BundleDataset, BundleReport
from lake.bundles.importing import ImportRequest, SeedTarget, import_bundle

__all__ = [
    "Bundle",
    "BundleDataset",
    "BundleReport",
    "ExportRequest",
    "ImportRequest",
    "SeedTarget",
    "export_bundle",
    "import_bundle",
]
