"""A plan as the text of a pipeline: Python, TypeScript, YAML or JSON.

Layering: steps (what all have in common) <- python, typescript, yaml <- forms (which one, and the check that
the text is the plan).
"""
