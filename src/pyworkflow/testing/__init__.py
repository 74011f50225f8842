"""Tools for tests: of workflows, and of services."""
