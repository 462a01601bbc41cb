"""Every step between two versions of an operator."""
