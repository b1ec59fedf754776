"""Do: everything that touches the world, as Temporal activities."""
