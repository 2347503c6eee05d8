"""Statistics of measures over pairs that share subjects."""
