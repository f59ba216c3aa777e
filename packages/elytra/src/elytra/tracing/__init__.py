"""Python functions as expressions: a function is called once with a placeholder row."""
