"""What all measurements share: fresh processes, turns, figures, tables and charts."""
