"""The gateway's own routes; lake has the routes of datasets and queries, elytra of jobs."""
