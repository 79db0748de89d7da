"""A body on its way to a client: what server runs us, who sends, how many at a time, and past Python where it can."""
