"""The programs: what operators and users type, and what they read. What is decided and done is elsewhere."""
