"""Machines that serve, launched from the published image."""
