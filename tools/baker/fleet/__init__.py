"""The fleet, as who launches it and who submits to it see it."""
