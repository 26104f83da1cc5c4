"""Images: files, tiles, and how good they are."""
