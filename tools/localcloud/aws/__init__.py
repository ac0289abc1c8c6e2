"""The AWS APIs: EC2 on real machines, S3 and SSM with persistence. Knows nothing of HTTP servers or the hub."""
