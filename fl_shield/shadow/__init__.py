"""Shadow tasks: federated rounds with known truth, from which the detector is learned."""
