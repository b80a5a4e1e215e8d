"""The measuring engine: workers, canaries, sessions, and the statistics of what they bring."""
