"""The service on this computer, without any machine: what tools/serve.py does."""
