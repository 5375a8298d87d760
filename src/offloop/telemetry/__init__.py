"""What is seen of a pool from outside; told by its conductors, and telling nobody."""
