"""What is wrong with an installation, and what to do: see docs/doctor.md."""
