"""What people do with a run: bring images, labels and points through it, export it."""
