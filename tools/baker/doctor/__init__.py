"""Whether an account can carry a bake, as one verdict a row: what was looked at, what is so, and the mend."""
