"""Images that exist: their manifests, who needs them, publishing."""
