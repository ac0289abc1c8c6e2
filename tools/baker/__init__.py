"""The launcher: turns the declaration in this tree into a verified machine image."""
