"""The clean samples that the server holds, and the views made of them."""
