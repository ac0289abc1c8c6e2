"""Many machines with one queue: the objects in S3 and the messages in SQS that they, and who submits, agree on.

The launcher uses this package as well, so it needs nothing but boto3's clients and msgspec. What botocore raises passes
through: each side says it in its own words.
"""
