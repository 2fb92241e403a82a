"""What every house must be able to do: one suite per port, run against each house."""
