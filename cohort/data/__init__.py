"""What a cohort is: files, grids and the store that holds them."""
