"""What this machine is and has: looked at, and installed on with apt."""
