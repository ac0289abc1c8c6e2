"""AWS, one module for each kind of resource; no decisions."""
