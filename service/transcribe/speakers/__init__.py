"""Who speaks when: voices as numbers, the speakers among them, and whose each word is."""
