"""Reports to send to someone: one HTML file that needs no other."""
