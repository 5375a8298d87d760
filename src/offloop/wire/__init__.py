"""What moves: objects to bytes, bytes between processes. The four are strangers."""
