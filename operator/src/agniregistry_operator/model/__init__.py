"""Plain values: what is wanted, what is seen, what to do, what to say. Nothing is asked here."""
