"""What operators make of shapes and of small integer tensors, one rule for each operator."""
