"""elytra.backends: where attempts run. Today the executors of this node (`local`)."""
