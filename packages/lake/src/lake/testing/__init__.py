"""For tests of Lake and of what is built on it; ships with the package."""
