"""The process and its surroundings: memory, locks, paths, interruptions, arguments."""
