"""elytra.backends: where attempts run; currently only the executors of this node (`local`)."""
