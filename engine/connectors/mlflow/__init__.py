"""MLflow's prompt registry as source and target: prompts made in two calls, aliases, content in tags.

May import what every connector may: http, content, the model, errors, log, lossless JSON and task groups.
"""
