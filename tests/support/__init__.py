"""What several tests use: fakes, generators, and ways to start the real parts."""
