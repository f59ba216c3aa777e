"""What a lake does by itself, and what removes data: scrub, compaction, retention, cleanup, purge.

`maintenance` runs the `tasks` of the `plan` in the background. Only `retention` deletes objects.
"""
