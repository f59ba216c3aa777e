"""Who may read and change a dataset, which rows and columns they see, and how much they may use."""
