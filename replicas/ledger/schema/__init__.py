"""What all questions to our tables stand on: the tables, their rows as facts, and the connection."""
