"""The server's own shadows: updates that it simulates on the live global model, and their uses."""
