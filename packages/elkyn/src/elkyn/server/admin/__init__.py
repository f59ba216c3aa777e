"""Endpoints outside the tree, for operators and the dashboard: health, metrics, rules, search, pages."""
