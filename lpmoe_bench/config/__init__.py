"""What is asked for: settings with their roles, and recipes."""
