"""Pure decisions: from what is seen and what is wanted to the next safe actions and the status."""
