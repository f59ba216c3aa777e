"""Copies of shared objects: where they are to be, how they get there, and their repair."""
