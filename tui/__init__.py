"""What people see: the `advisor` command and the app. May import every other room; never torch."""
