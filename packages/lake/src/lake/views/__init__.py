"""Views: named queries beside the datasets."""
