"""How pairs get done: the plan, the tile, the driver and the results."""
