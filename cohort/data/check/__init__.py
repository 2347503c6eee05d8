"""What `cohort check` measures, compares and says."""
