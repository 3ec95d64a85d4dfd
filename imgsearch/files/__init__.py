"""What is where: files on disk, and how they are opened."""
