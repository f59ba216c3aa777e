"""elytra.backends.remote: workers that connect to the node, such as browser tabs (engine `browser`).

Layering: messages < sessions, instructions < machine; plans < inputs, results; all of them < backend.
Of these, `plans` needs no lake, so that clients can explain where a pipeline may run.
"""
