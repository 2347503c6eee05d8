"""Workers that Dask schedules: on this machine, or wherever a scheduler has them."""
