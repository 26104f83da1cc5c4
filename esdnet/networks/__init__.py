"""Networks beside ESDNet, each in a package of its own."""
