"""What an image is made from."""
