"""Several processes as one: who starts them, what they tell each other, who has which rows."""
