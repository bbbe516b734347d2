"""Local training, run alike by benign clients and attackers."""
