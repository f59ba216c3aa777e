"""Read files, write files and streams, all within a memory budget.

Layering: records (CSV cut into blocks) <- csv_options <- csv_scan;  cells <- formats.
Submodules are imported by name; nothing here loads pyarrow.
"""

from emsqrt.io.csv_options import CsvOptions
from emsqrt.io.records import CsvDialect, RecordBlock, record_ends, split_records

__all__ = ["CsvDialect", "CsvOptions", "RecordBlock", "record_ends", "split_records"]
