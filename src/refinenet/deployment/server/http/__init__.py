"""HTTP itself, without knowledge of models: connections, the gate before routes, refusals, running an application."""
