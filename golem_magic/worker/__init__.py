"""The process that claims tasks, runs them and publishes their outcomes."""
