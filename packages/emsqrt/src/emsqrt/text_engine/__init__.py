"""emsqrt.text_engine: run plans over CSV and JSONL without pyarrow, in a process that starts small.

Operators exchange blocks of CSV text: whole records, of which C parses only the columns that are
used; the other fields keep their original bytes. Layering: text (blocks and readers) <- scan,
steps, blocking operators <- compile, build (plans to operators) <- session (one run) <- process
(the child), child (its parent's side).
"""
