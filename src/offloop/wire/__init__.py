"""What moves: objects to bytes, bytes between processes. Its parts are strangers."""
