"""Settings that people write, checked, and the methods that they build."""
