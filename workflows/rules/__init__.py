"""Pure functions over contracts: no clock, no I/O, no temporalio."""
