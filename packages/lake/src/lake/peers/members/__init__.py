"""Who belongs to a network, who of them is alive, and where they are reached."""
