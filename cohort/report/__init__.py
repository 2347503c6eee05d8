"""A run as one offline page: figures and tables."""
