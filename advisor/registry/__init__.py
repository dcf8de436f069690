"""Whatever can be chosen by name, each thing described once."""
