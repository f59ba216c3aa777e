"""Files of the node's own machine that datasets read where they are."""
