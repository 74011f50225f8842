"""The services that keep the history of executions."""
