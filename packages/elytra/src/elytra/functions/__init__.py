"""Python functions of pipelines on a node: their text, their operator, and the process that runs them.

Layering: step (what a plan holds), frames, syscalls <- sandbox <- child (the process)
          program (the client: a function as text) <- elytra.pipelines
          step, frames <- operator (in an executor) <- elytra.backends.local
          step <- elytra.service.plan_binding, which decides whether a plan may have functions

A gateway reads the options of such an operator, and never its program.
"""
