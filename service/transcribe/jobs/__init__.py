"""The job store: durable jobs, shared by the API and the worker."""
