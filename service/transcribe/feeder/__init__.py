"""The feeder: takes jobs from the fleet's queue for this machine's worker, and brings their results back.

It is the only process of the machine that talks to AWS. What it holds is in the job store, so it may end at any moment.
"""
