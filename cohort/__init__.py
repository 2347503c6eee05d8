"""Many subjects, many pairs: from NIfTI files to a table of registered pairs and a report."""
