"""Views: named queries, their rights, and which views they read."""
