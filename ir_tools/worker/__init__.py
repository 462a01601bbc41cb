"""The child process that runs models: it imports a runtime, numpy and little else."""
