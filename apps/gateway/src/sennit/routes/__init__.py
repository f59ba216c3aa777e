"""The gateway's own routes; datasets and questions come from lake, uploads and jobs from elytra."""
