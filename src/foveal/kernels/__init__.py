"""How operations run fast. Hidden from users: ``foveal.functional`` chooses among these."""
