"""Connections of a node with others: its identity, channels, sessions, relays, and what they may cost.

`signed` are statements with a signature, `messages` and `machine` what protocols are made of.
"""
