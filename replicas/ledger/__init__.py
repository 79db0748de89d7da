"""Our own rows: one module for each question, and what all of them stand on (`schema/`)."""
