"""What is measured, one file each: a `measure` that runs in a fresh process."""
