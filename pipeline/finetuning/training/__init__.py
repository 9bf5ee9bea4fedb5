"""Steps and epochs, on which activations, and the state to resume from."""
