"""What people see: tables for terminals, plain text where there is none."""
