"""What outlives a launcher: its lease, its records, and cleaning up."""
