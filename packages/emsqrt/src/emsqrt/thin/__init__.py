"""emsqrt.thin: plans over CSV and JSONL without pyarrow, in a process that starts small.

Operators exchange blocks of CSV text: whole records, of which C parses the columns that are looked
at; what is not looked at travels as it was spelled. Layering: text (what flows) <- scan, steps,
blocking <- lower (plans to operators) <- session (one run) <- process (the child), child (its
parent's side).
"""
