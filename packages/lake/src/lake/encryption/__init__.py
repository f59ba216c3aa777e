"""Encrypted datasets: the format of their files, their keys, and decrypted copies for statements."""
