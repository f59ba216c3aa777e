"""Contenders of `bench_elytra_ray.py`: programs of their own, since their packages exclude each other."""
