"""The layer graph as hardware runs it: simulators, exact operation counts and their price."""
