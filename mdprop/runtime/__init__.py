"""What a stage runs on, and what it says meanwhile."""
